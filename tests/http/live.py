"""uvicorn in a thread of this process, over a fake backend: for clients that leave, or that test by HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx2
import uvicorn

from tests.fakes import FakeBackend
from tests.http.door import HELLO, MODEL, settings
from transom.app import create_app

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASK = {COMPLETIONS: {"prompt": "The light"}, CHAT: {"messages": HELLO}}


class Live:
    """The server; anonymous callers are let in. To browsers it is at `site`, for a passkey needs a name."""

    def __init__(self, home, tokenizer, **more):
        self.backend = FakeBackend(MODEL, tokenizer)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.site = f"http://localhost:{self.address[1]}"
        own = settings(home, **{"allow_anonymous": True, "port": self.address[1]} | more)
        self._app = create_app(own, backends={MODEL: self.backend})
        config = uvicorn.Config(self._app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],))

    def __enter__(self):
        self._thread.start()
        until(lambda: self.backend.ready)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)
        self._listening.close()
        assert not self._thread.is_alive()

    def request(self, path: str, **body) -> socket.socket:
        """Send a request, and leave the reply to be read."""
        content = json.dumps({"model": MODEL} | ASK[path] | body).encode()
        connection = socket.create_connection(self.address, timeout=10)
        head = f"POST {path} HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        return connection

    def record(self, record_id: str) -> dict | None:
        reply = httpx2.get(f"{self.url}/v1/records/{record_id}")
        return reply.json() if reply.status_code == 200 else None

    def only_record(self) -> dict:
        """The record of the one request that the backend took, once it is there."""
        record_id = until(lambda: self.backend.taken)[0].sequence_id.partition("/")[0]
        return until(lambda: self.record(record_id))


def until(condition, seconds=10.0):
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What came, up to `end` and a little more."""
    read = b""
    while end not in read:
        piece = connection.recv(1000)
        assert piece, f"the connection ended after {read!r}"
        read += piece
    return read
