"""Long content, sealed block by block: written as it arrives, and read from anywhere in it.

    sealed = block 0 || tag (16) || block 1 || tag (16) || …

Each block but the last has 256 KiB. A block is AES-256-GCM under a key that seals this content and nothing
else, with the block's number as the nonce, so that no two blocks share one. Whoever keeps the key keeps the
length beside it: a block that was changed, moved or left out does not open, and neither does a shortened end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from transom.errors import StorageError

BLOCK_BYTES = 1 << 18
KEY_BYTES = 32
_TAG_BYTES = 16
_SEALED_BYTES = BLOCK_BYTES + _TAG_BYTES
_AT_ONCE = 8
"""Blocks that are fetched together."""


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


class Sealing:
    """Content on its way in.

    Args:
        file: where it goes, sealed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.key = AESGCM.generate_key(8 * KEY_BYTES)
        self.size = 0
        self._file = file
        self._cipher = AESGCM(self.key)
        self._digest = sha256()
        self._left = bytearray()
        self._index = 0

    def take(self, data: bytes) -> None:
        """Take the next bytes, of any length."""
        self.size += len(data)
        self._digest.update(data)
        self._left += data
        while len(self._left) >= BLOCK_BYTES:
            self._write(bytes(self._left[:BLOCK_BYTES]))
            del self._left[:BLOCK_BYTES]

    def end(self) -> str:
        """Write what is left.

        Returns:
            SHA-256 of the content, hexadecimal.
        """
        if self._left:
            self._write(bytes(self._left))
            self._left.clear()
        self._file.flush()
        return self._digest.hexdigest()

    def _write(self, block: bytes) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._index), block, None))
        self._index += 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """Content that was sealed."""

    key: bytes = field(repr=False)
    size: int
    fetch: Callable[[int, int], bytes] = field(repr=False)
    """Sealed bytes from a place on, so many."""

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Its bytes from one place to another, in pieces.

        Raises:
            StorageError: it was changed or shortened, or cannot be fetched.
        """
        cipher = AESGCM(self.key)
        first, last = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
        for index in range(first, last, _AT_ONCE):
            piece = b"".join(self._blocks(cipher, index, min(index + _AT_ONCE, last)))
            before = index * BLOCK_BYTES
            yield piece[max(0, start - before) : stop - before]

    def _blocks(self, cipher: AESGCM, first: int, last: int) -> Iterator[bytes]:
        """Some blocks, each as long as it has to be."""
        sealed = self.fetch(first * _SEALED_BYTES, (last - first) * _SEALED_BYTES)
        for number in range(first, last):
            at = (number - first) * _SEALED_BYTES
            try:
                block = cipher.decrypt(_nonce(number), sealed[at : at + _SEALED_BYTES], None)
            except (InvalidTag, ValueError) as error:
                raise _does_not_open() from error
            if len(block) != min(BLOCK_BYTES, self.size - number * BLOCK_BYTES):
                raise _does_not_open()
            yield block


def _does_not_open() -> StorageError:
    return StorageError(
        "An artifact does not open: its blob was changed or cut short. Restore it from a backup."
    )
