"""Asking one witness to cosign a checkpoint (https://c2sp.org/tlog-witness)."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import httpx2

from transom.errors import NotVerified
from transom.schema.addresses import is_loopback
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.files import LogReader
from transom.tlog.notes import Note, Signature, VerifierKey
from transom.tlog.submissions import MOST_BYTES, PATH, SIZE_TYPE, Submission, read_signatures, read_size

SECONDS = 10.0
"""How long a witness may take to answer, all in all."""


class NotCosigned(Exception):
    """A witness did not cosign; says why."""


class WitnessDoor:
    """A witness as its log sees it. Remembers which size it knows.

    Args:
        key: of the witness.
        url: its submission prefix.
        log: for proofs.
        transport: in the place of the network, for tests.
    """

    def __init__(
        self, key: VerifierKey, url: str, log: LogReader, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._key = key
        self._url = f"{url.rstrip('/')}/{PATH}"
        self._log = log
        self._known = 0
        # A proxy named in the environment cannot reach this machine's own loopback.
        trust_env = not is_loopback(httpx2.URL(url).host)
        headers = {"accept-encoding": "identity"}
        self._http = httpx2.Client(headers=headers, timeout=SECONDS, transport=transport, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def cosign(self, note: Note) -> Signature:
        """The cosignature of the log's newest checkpoint.

        Raises:
            NotCosigned: there is none.
        """
        head = Checkpoint.parse(note.text)
        own = Note(note.text, tuple(each for each in note.signatures if each.name == head.origin))
        # Twice: what it knows may have to be learnt; who says something else each time is not believed.
        for _ in range(2):
            status, media_type, content = self._send(self._submission(head, own))
            if status == 200:
                return self._checked(head, content)
            if status != 409 or media_type != SIZE_TYPE:
                raise NotCosigned(f"it answered {status}: {content[:200].decode(errors='replace').strip()}")
            self._learn(head, content)
        raise NotCosigned("it names another size each time that it is asked")

    def _submission(self, head: Checkpoint, note: Note) -> Submission:
        try:
            proof = self._log.consistency(self._known, head.size)
        except (NotVerified, ValueError) as error:
            raise NotCosigned(f"there is no proof for it: {error}") from None
        return Submission(self._known, tuple(proof), str(note))

    def _learn(self, head: Checkpoint, content: bytes) -> None:
        try:
            size = read_size(content)
        except NotVerified as error:
            raise NotCosigned(error.message) from None
        if size > head.size:
            raise NotCosigned(f"it has seen {size} entries, and the log has {head.size}: the log went back")
        if size == self._known:
            raise NotCosigned(f"it has seen other entries: of size {size} it knows another root")
        self._known = size

    def _checked(self, head: Checkpoint, content: bytes) -> Signature:
        try:
            found = Note(head.text, tuple(read_signatures(content))).verified([self._key])
        except NotVerified as error:
            raise NotCosigned(error.message) from None
        if not found:
            raise NotCosigned(
                f"its answer holds no cosignature of {self._key.name!r} by the key of the policy"
            )
        self._known = head.size
        return found[-1][1]

    def _send(self, submission: Submission) -> tuple[int, str, bytes]:
        """Status, media type and body of the answer."""
        deadline, body = time.monotonic() + SECONDS, bytearray()
        try:
            with self._http.stream("POST", self._url, content=str(submission).encode()) as response:
                if "content-encoding" in response.headers:
                    raise NotCosigned("its answer is compressed, which was not asked for")
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES or time.monotonic() > deadline:
                        raise NotCosigned("its answer is too long, or takes too long")
        except httpx2.HTTPError as error:
            raise NotCosigned(f"it cannot be reached: {error or type(error).__name__}") from None
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        return response.status_code, media_type, bytes(body)
