"""Chromium without a window, spoken to through a pipe in its own protocol (Chrome DevTools Protocol).

https://chromedevtools.github.io/devtools-protocol/ has the commands, those of the virtual authenticator too.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 20.0
"""Seconds for anything that a page or the browser is waited for."""

_PR_SET_PDEATHSIG = 1
_KEYS = {"Tab": 9, "Enter": 13, " ": 32}
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en-GB",
    "--window-size=900,900",
)


def program() -> str | None:
    """Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One browser with one page, and nothing kept of it.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder: Path) -> None:
        asks, self._to = os.pipe()
        self._from, answers = os.pipe()
        # It reads from 3 and writes to 4, which may be taken here.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (asks, answers)]
        root = ["--no-sandbox"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [program(), *_OPTIONS, *root, f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=lambda: _inherit(given),  # noqa: PLW1509 - it calls a few functions of the system
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (asks, answers, *given):
            os.close(end)
        self._read, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "WebAuthn"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and what it answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, url: str) -> None:
        """Go to an address, and wait until its page is there."""
        self.call("Page.navigate", url="about:blank")
        self.wait("document.readyState === 'complete' && location.href === 'about:blank'")
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"{condition} is not so; the page says: {self.text()}"
            time.sleep(0.03)

    def wait_for(self, text: str) -> None:
        """Until a text can be read on the page."""
        self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def text(self) -> str:
        """What can be read on the page."""
        return self.evaluate("document.body.innerText")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key of the keyboard."""
        for _ in range(times):
            about = {"key": key, "windowsVirtualKeyCode": _KEYS[key], "nativeVirtualKeyCode": _KEYS[key]}
            text = {"Enter": "\r", " ": " "}.get(key)
            down = {"type": "keyDown" if text else "rawKeyDown"} | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", **down, **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def focused(self) -> str:
        """What has the focus, by the name that a screen reader says."""
        node = self.call("Runtime.evaluate", expression="document.activeElement")["result"]
        tree = self.call("Accessibility.getPartialAXTree", objectId=node["objectId"], fetchRelatives=False)
        return tree["nodes"][0].get("name", {}).get("value", "")

    def tab_to(self, name: str, most: int = 30) -> None:
        """Press Tab until what is called so has the focus, as somebody without a mouse does."""
        seen = []
        for _ in range(most):
            if self.focused() == name:
                return
            seen.append(self.focused())
            self.press("Tab")
        raise AssertionError(f"Tab does not lead to {name!r}, but to {seen}")

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """What the browser has logged as an error of the page's, and not of what a request answered."""
        self.evaluate("1")
        logged = [event["params"] for event in self.events if event.get("method") == "Log.entryAdded"]
        thrown = [
            event["params"] for event in self.events if event.get("method") == "Runtime.exceptionThrown"
        ]
        found = [each["entry"] for each in logged if each["entry"]["level"] == "error"]
        return [each["text"] for each in found if each["source"] != "network"] + [
            str(each) for each in thrown
        ]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser says nothing"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser is gone"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)


def _inherit(given: list[int]) -> None:
    os.dup2(given[0], 3)
    os.dup2(given[1], 4)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
