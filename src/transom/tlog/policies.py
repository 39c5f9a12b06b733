"""Which logs and which witnesses are trusted, and how many of them (https://c2sp.org/tlog-policy)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from transom.errors import ConfigurationError, NotVerified
from transom.tlog.checkpoints import Checkpoint, cosigners, open_checkpoint
from transom.tlog.notes import COSIGNATURE, ED25519, Note, VerifierKey

NONE = "none"
"""The quorum that needs no witness."""

_MOST_LINES = 1000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody who cosigns what it has seen grow."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses and groups of which some must have cosigned."""

    needed: int
    members: tuple[str, ...]


_Words: TypeAlias = "list[str]"


@dataclass(slots=True)
class Policy:
    """When a checkpoint is believed: one of the logs signed it, and a quorum of witnesses cosigned it."""

    logs: dict[VerifierKey, str | None] = field(default_factory=dict)
    """Keys with their URLs."""
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str | None = None

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy's file.

        Raises:
            NotVerified: it is none; names the line.
        """
        policy = cls()
        lines = text.split("\n")
        if len(lines) > _MOST_LINES:
            raise NotVerified(f"a policy has no more than {_MOST_LINES} lines")
        for number, line in enumerate(lines, 1):
            words = line.replace("\t", " ").split(" ")
            words = [word for word in words if word]
            if not words or words[0].startswith("#"):
                continue
            try:
                if _CONTROL.search(line):
                    raise NotVerified("there is a control character in it")  # noqa: TRY301
                policy._take(words)
            except NotVerified as error:
                raise NotVerified(f"line {number} of the policy: {error.message}") from None
        if policy.quorum is None:
            raise NotVerified("the policy has no line that begins with quorum")
        return policy

    def _take(self, words: _Words) -> None:
        match words:
            case ["log", key, *url] if len(url) < 2:
                self._add_log(VerifierKey.parse(key), *url)
            case ["witness", name, key, *url] if len(url) < 2:
                self._add_witness(name, VerifierKey.parse(key), *url)
            case ["group", name, needed, *members] if members:
                self._add_group(name, needed, members)
            case ["quorum", name]:
                self._set_quorum(name)
            case _:
                raise NotVerified(f"{' '.join(words)[:120]!r} is no line of a policy")

    def _add_log(self, key: VerifierKey, url: str | None = None) -> None:
        if key.kind != ED25519:
            raise NotVerified(f"the key of the log {key.name!r} is one for cosignatures")
        if any(key.public == other.public for other in self.logs):
            raise NotVerified(f"the log {key.name!r} has the key of another")
        self.logs[key] = url

    def _add_witness(self, name: str, key: VerifierKey, url: str | None = None) -> None:
        self._check_new(name)
        if key.kind != COSIGNATURE:
            raise NotVerified(f"the key of the witness {name!r} is none for cosignatures")
        if any(key.public == other.key.public for other in self.witnesses.values()):
            raise NotVerified(f"the witness {name!r} has the key of another")
        self.witnesses[name] = Witness(key, url)

    def _add_group(self, name: str, needed: str, members: _Words) -> None:
        self._check_new(name)
        for member in members:
            self._check_known(member)
            if members.count(member) > 1 or any(member in group.members for group in self.groups.values()):
                raise NotVerified(f"{member!r} is a member twice")
        spelled = {"all": len(members), "any": 1}.get(needed)
        if spelled is None and re.fullmatch("[1-9][0-9]{0,8}", needed):
            spelled = int(needed)
        if spelled is None or spelled > len(members):
            raise NotVerified(f"{needed[:40]!r} is not all, any, or a number up to {len(members)}")
        self.groups[name] = Group(spelled, tuple(members))

    def _set_quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise NotVerified("the quorum was said before")
        if name != NONE:
            self._check_known(name)
        self.quorum = name

    def _check_new(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise NotVerified(f"the name {name!r} is taken")

    def _check_known(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise NotVerified(f"no line before names {name!r}")

    def verify(self, content: str | bytes) -> tuple[Checkpoint, Note]:
        """The checkpoint in a note that this policy believes.

        Raises:
            NotVerified: it does not; says whose signature is missing.
        """
        note = Note.parse(content)
        signers = [key for key, _ in note.verified(self.logs)]
        if not signers:
            raise NotVerified("no log of the policy has signed the checkpoint")
        opened = open_checkpoint(content, _of_origin(signers, note))
        cosigned = cosigners(note, [witness.key for witness in self.witnesses.values()])
        if not self.has_quorum(cosigned):
            seen = sorted(name for name, witness in self.witnesses.items() if witness.key in cosigned)
            raise NotVerified(
                f"the checkpoint is cosigned by {', '.join(seen) or 'nobody'}: no quorum of {self.quorum!r}"
            )
        return opened

    def has_quorum(self, cosigned: Collection[VerifierKey]) -> bool:
        """Whether these witnesses are enough."""
        enough = {name for name, witness in self.witnesses.items() if witness.key in cosigned}
        # A group names only what stands before it.
        for name, group in self.groups.items():
            if sum(member in enough for member in group.members) >= group.needed:
                enough.add(name)
        return self.quorum == NONE or self.quorum in enough


def _of_origin(signers: Sequence[VerifierKey], note: Note) -> VerifierKey:
    """The log of several that signed a note whose name the note says."""
    origin = note.text.partition("\n")[0]
    return next((key for key in signers if key.name == origin), signers[0])


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ConfigurationError: it cannot be read, or holds none; names the line.
    """
    try:
        return Policy.parse(path.read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The policy {path} cannot be read: {error}.") from None
    except NotVerified as error:
        raise ConfigurationError(f"{path} is no policy (https://c2sp.org/tlog-policy): {error}.") from None
