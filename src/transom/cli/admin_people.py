"""`transom admin`: who may review or act for the operator, and whether the counters are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from transom.cli.output import exit_on_error, out, write_rows
from transom.cli.premises import in_office, opened_office
from transom.errors import OperatorError

if TYPE_CHECKING:
    from transom.access.people.people import Role

roles = typer.Typer(help="Who reviews applications, and who acts for the operator.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="Address of a person who has signed in before.")]
RoleName = Annotated[str, typer.Argument(help="reviewer or operator.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(roles, name="role")
    app.command()(reconcile)


@roles.command("give")
@exit_on_error
def give_role(email: Email, role: RoleName) -> None:
    """Let a person act as `role`."""
    from transom.services.people import roles as services

    person = in_office(lambda office, caller: services.give(office, caller, email, role))
    out.print(f"{person.email} ({person.id}) is: {', '.join(sorted(person.roles))}.")


@roles.command("take")
@exit_on_error
def take_role(email: Email, role: RoleName) -> None:
    """End it, from the next request on."""
    from transom.services.people import roles as services

    person = in_office(lambda office, caller: services.take(office, caller, email, role))
    out.print(f"{person.email} ({person.id}) is: {', '.join(sorted(person.roles)) or 'nothing special'}.")


@roles.command("list")
@exit_on_error
def list_roles() -> None:
    """Everybody who has a role."""
    from transom.services.people import roles as services

    found: list[tuple[Role, str, str]] = in_office(lambda office, _: services.holders(office))
    write_rows(("role", "person", "address"), found)


@exit_on_error
def reconcile(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the counters say what is true.")] = False,
) -> None:
    """Compare the counters of quotas with the ledger and the leases; ends with 1 where one is wrong."""
    from transom.access.quotas import reconcile as books

    with opened_office() as office:
        if rebuild:
            wrong = office.database.write_sync(books.rebuild)
            out.print(f"{wrong} counters were wrong, and are right now.")
            return
        differences = office.database.read_sync(books.check)
    if differences:
        first = differences[0]
        raise OperatorError(
            f"{len(differences)} counters are wrong, such as {first.cell.budget} of {first.cell.account}: "
            "run it with --rebuild."
        )
    out.print("Every counter agrees with the ledger.")
