"""Who acts on the programme: a person who signed in, an operator at the machine, or the server itself."""

from __future__ import annotations

from dataclasses import dataclass

from transom.access.rights.trail import SYSTEM

MACHINE = "operator:"
"""What the id of whoever acts at the server's machine begins with; no person's does."""

REVIEWING = frozenset({"reviewer", "operator"})
"""Roles whose holders review applications."""


@dataclass(frozen=True, slots=True)
class PersonCaller:
    """Who acts."""

    person_id: str
    """`per_…`; `operator:<user of the machine>`, or `SYSTEM`, neither of which is ever in a project."""
    roles: frozenset[str] = frozenset()

    @property
    def reviews(self) -> bool:
        """Whether they review, applications of their own projects apart."""
        return bool(self.roles & REVIEWING)

    @property
    def operates(self) -> bool:
        """Whether they act for the operator."""
        return "operator" in self.roles


THE_SERVER = PersonCaller(SYSTEM)


def at_the_machine(user: str) -> PersonCaller:
    """Whoever runs a command on the server's machine, as `user` of it."""
    return PersonCaller(MACHINE + user, REVIEWING)
