"""What each role in a project allows: one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody is in a project. A project always has an owner, and may have several."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class Act(StrEnum):
    """What somebody may want to do with a project."""

    READ = "project.read"
    """See it, its members and its trail."""
    EDIT = "project.edit"
    """Change name, texts and embargo."""
    ARCHIVE = "project.archive"
    """Archive it, and open it again."""
    TRANSFER = "project.transfer"
    DELETE = "project.delete"
    EXPORT = "project.export"
    """Take everything along, prompts and answers of all members included."""
    INVITE = "member.invite"
    """Invite, see who is invited, and take an invitation back."""
    CHANGE_ROLE = "member.change"
    REMOVE = "member.remove"
    LEAVE = "member.leave"
    CREATE_KEY = "key.create"
    """Make keys of one's own, and rotate them."""
    REVOKE_OWN_KEY = "key.revoke"
    SEE_ALL_KEYS = "key.list"
    REVOKE_ANY_KEY = "key.revoke_any"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may, and when."""

    roles: frozenset[Role]
    suspended: bool = False
    """Whether also while the project or the person is suspended."""
    archived: bool = False
    """Whether also while the project is archived."""


_ALL = frozenset(Role)
_LEADERS = frozenset({Role.OWNER, Role.ADMIN})
_OWNERS = frozenset({Role.OWNER})

RULES: dict[Act, Rule] = {
    Act.READ: Rule(_ALL, suspended=True, archived=True),
    Act.EDIT: Rule(_LEADERS),
    Act.ARCHIVE: Rule(_OWNERS, archived=True),
    Act.TRANSFER: Rule(_OWNERS, archived=True),
    Act.DELETE: Rule(_OWNERS, archived=True),
    Act.EXPORT: Rule(_LEADERS, suspended=True, archived=True),
    Act.INVITE: Rule(_LEADERS),
    Act.CHANGE_ROLE: Rule(_OWNERS, archived=True),
    Act.REMOVE: Rule(_LEADERS, archived=True),
    Act.LEAVE: Rule(_ALL, suspended=True, archived=True),
    Act.CREATE_KEY: Rule(_ALL),
    Act.REVOKE_OWN_KEY: Rule(_ALL, suspended=True, archived=True),
    Act.SEE_ALL_KEYS: Rule(_LEADERS, suspended=True, archived=True),
    Act.REVOKE_ANY_KEY: Rule(_LEADERS, suspended=True, archived=True),
}
"""The table. What is a researcher's right, such as to read and to take along, stays while suspended."""

COMMANDS: dict[Role, frozenset[Role]] = {
    Role.OWNER: _ALL,
    Role.ADMIN: frozenset({Role.MEMBER}),
    Role.MEMBER: frozenset(),
}
"""Whom each role may invite or remove."""


def may(role: Role, act: Act) -> bool:
    """Whether `role` allows `act` in a project that is neither suspended nor archived."""
    return role in RULES[act].roles
