"""What the server writes to people. They go beside the request that asked: nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog

from transom.access.people.mail import Mail, MailNotSent
from transom.access.sign_in.links import LIFETIME, NewLink
from transom.services.house import House

log = structlog.get_logger()

PAUSES: Sequence[float] = (2.0, 10.0, 60.0)
"""Seconds between tries, while a mail server does not take a mail. A link is good for fifteen minutes."""

_SIGN_IN = """\
Somebody, most likely you, asked to sign in to {origin} with this address.

Open this link where you asked, or enter the code there:

    {link}

    {code}

Both are good for {minutes} minutes, once. If it was not you, do nothing: without this mail nobody gets in.
Tell the code to nobody, whoever asks.
"""

_NEW_ADDRESS = """\
Somebody, most likely you, wants to use this address for their account at {origin}.

Enter this code there:

    {code}

It is good for {minutes} minutes, once. If it was not you, do nothing. Tell the code to nobody, whoever asks.
"""


def sign_in_mail(origin: str, email: str, link: NewLink) -> Mail:
    """The mail with a sign-in link. The secret stands behind `#`, which no browser sends to any server."""
    text = _SIGN_IN.format(
        origin=origin, link=f"{origin}/sign-in#{link.token}", code=link.code, minutes=_minutes()
    )
    return Mail(email, "Sign in to Transom", text)


def new_address_mail(origin: str, email: str, link: NewLink) -> Mail:
    """The mail that proves that an address is somebody's."""
    text = _NEW_ADDRESS.format(origin=origin, code=link.code, minutes=_minutes())
    return Mail(email, "Confirm your address", text)


def post(house: House, mail: Mail) -> None:
    """Have a mail sent. How that goes is the operator's business, and is told to nobody else."""
    house.spawn(_deliver(house, mail))


async def _deliver(house: House, mail: Mail) -> None:
    for pause in (*PAUSES, None):
        try:
            await house.entrance.mailer.send(mail)
        except MailNotSent as failure:
            # Neither address nor text: a log is read by more people than a mailbox.
            log.error("mail not sent", reason=str(failure), again_in=pause)
        else:
            return
        if pause is None or house.draining:
            return
        await asyncio.sleep(pause)


def _minutes() -> int:
    return LIFETIME // timedelta(minutes=1)
