"""interp-engine's server, asked over HTTP as its own client would. See `hooks` for how this is asked.

It has no plan of several runs, so it neither patches nor sweeps.
"""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.inside import work
from benchmarks.inside.hooks import answer

LAYERS = list(range(30))
AT_ONCE = 8


class Server:
    """The server, for as long as the context is open."""

    def __init__(self, root: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "interp_engine.server", "--model", root, "--backend", "eager"]
        command += ["--device", "cpu", "--dtype", "float32", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )

    def __enter__(self) -> Self:
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                    return self
            except (URLError, OSError):
                time.sleep(0.5)
        raise OSError("interp-engine's server did not start")

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        asked = Request(f"http://127.0.0.1:{self._port}/v1/{path}", json.dumps(body).encode())
        asked.add_header("content-type", "application/json")
        with urlopen(asked, timeout=600) as reply:
            return dict(json.load(reply))

    def ask_all(self, path: str, bodies: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several at once, as many as it takes."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda body: self.ask(path, body), bodies))


class InterpEngine:
    """The tasks."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def capture(self) -> float:
        points = [f"resid_post.{layer}" for layer in LAYERS]
        bodies = ({"prompt_token_ids": work.prompt(i), "points": points} for i in range(work.PROMPTS))
        found = [
            [np.frombuffer(base64.b64decode(each["data"]), "<f4").reshape(each["shape"]) for each in values]
            for values in (reply["activations"].values() for reply in self._server.ask_all("capture", bodies))
        ]
        return float(sum(found[i][-1][-1, 0] for i in work.COMPARED))

    def lens(self) -> float:
        bodies = (
            {
                "prompt_token_ids": work.prompt(i),
                "lenses": [{"layers": LAYERS}],
                "top_n": 1,
                "skip_before": work.LENGTH - 1,
                "stream": False,
            }
            for i in range(work.PROMPTS)
        )
        found = self._server.ask_all("lens", bodies)
        best = [found[i]["steps"][-1]["lenses"][0]["top_probs"][-1][0] for i in work.COMPARED]
        return sum(map(math.log, best))

    def steer(self) -> float:
        found = self._server.ask_all(
            "generate", (self._steered(i, 16, work.NEW_TOKENS) for i in range(work.STEERED))
        )
        return float(found[0]["token_ids"][-1])

    def _steered(self, number: int, length: int, tokens: int) -> dict[str, Any]:
        vector = [work.STEERING_STRENGTH / 10] * 576
        write = {"method": "additive", "vector": vector, "scale": 1.0}
        return {
            "prompt_token_ids": work.prompt(number, length),
            "max_tokens": tokens,
            "temperature": 0.0,
            "stop_at_eos": False,
            "stream": False,
            "steering": [{"layers": {str(work.STEERING_LAYER): [write]}}],
        }

    def _research(self, number: int) -> None:
        """A steered generation and what it was inside are two requests here."""
        body = self._steered(number, 24, 24)
        ids = body["prompt_token_ids"] + self._server.ask("generate", body)["token_ids"][:-1]
        points = [f"resid_post.{layer}" for layer in LAYERS]
        last = {"rows": [23], "steering": body["steering"]}
        self._server.ask("capture", {"prompt_token_ids": ids, "points": points} | last)

    def in_turn(self) -> float:
        for number in range(work.RESEARCHERS):
            self._research(number)
        return 0.0

    def at_once(self) -> float:
        research: Callable[[int], None] = self._research
        with ThreadPoolExecutor(work.RESEARCHERS) as pool:
            list(pool.map(research, range(work.RESEARCHERS)))
        return 0.0


if __name__ == "__main__":
    with Server(sys.argv[1]) as started:
        answer(InterpEngine(started))
