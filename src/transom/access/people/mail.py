"""Where mails go: into a folder on the operator's machine, or out by SMTP."""

from __future__ import annotations

import asyncio
import os
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from transom.access.credentials.keys import random_id
from transom.access.people.people import normal_email
from transom.errors import ConfigurationError, InvalidRequest, NotFound
from transom.schema.addresses import is_loopback

# Lines as long as RFC 5322 allows: a link stays in one piece, and a folder of mails can be read by eye.
_POLICY = policy.SMTP.clone(max_line_length=998)
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail: plain text, to one address."""

    to: str
    subject: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMail:
    """A mail that lies in the folder."""

    id: str
    written: datetime
    to: str
    subject: str
    text: str = field(repr=False)


class Mailer(Protocol):
    """Something that takes a mail on its way."""

    async def send(self, mail: Mail) -> None:
        """Hand the mail on.

        Raises:
            MailNotSent: it was not taken.
        """


class MailNotSent(OSError):
    """A mail was not taken; it may be, another time."""


class Letters:
    """A mailer for those who have the parts of a mail in their hands.

    Args:
        mailer: takes the mails.
    """

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand a mail on.

        Raises:
            MailNotSent: it was not taken.
        """
        await self._mailer.send(Mail(to, subject, text))


def _now() -> datetime:
    return datetime.now(UTC)


def compose(mail: Mail, sender: str, when: datetime) -> EmailMessage:
    """The mail as RFC 5322 has it.

    Raises:
        ValueError: a header would hold a line end.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = Address("Transom", addr_spec=sender)
    message["To"] = Address(addr_spec=mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(when)
    # Not the standard library's: that tells the process and the time, and draws from a shared generator.
    message["Message-ID"] = f"<{random_id()}@{sender.rpartition('@')[2]}>"
    # No answering machine answers, and no list takes part (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    # ASCII goes as it is, so that a folder of mails can be read by eye.
    charset, encoding = ("us-ascii", "7bit") if mail.text.isascii() else ("utf-8", "quoted-printable")
    message.set_content(mail.text, charset=charset, cte=encoding)
    return message


class MailFolder:
    """Mails as files that only the operator reads: what a server does that has no way to send them.

    The folder is trusted: whoever can read it can sign in as those whose mails lie there, for as long as the
    links in them are good.
    """

    def __init__(
        self, folder: Path, sender: str = "transom@localhost", *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._folder = folder
        self._sender = sender
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        """Write the mail to a file of its own, whole or not at all."""
        try:
            await asyncio.to_thread(self._write, mail)
        except OSError as error:
            raise MailNotSent(f"The mail could not be written: {error.strerror}.") from error

    def list_mails(self) -> list[KeptMail]:
        """What lies in the folder, oldest first."""
        files = self._folder.glob("*.eml") if self._folder.is_dir() else ()
        return [_read(path) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]

    def get(self, mail_id: str) -> KeptMail:
        """One mail.

        Raises:
            NotFound: there is none of that id.
        """
        for path in self._folder.glob("*.eml"):
            if path.stem == mail_id:
                return _read(path)
        raise NotFound(f"There is no mail {mail_id[:60]!r} in {self._folder}.")

    def _write(self, mail: Mail) -> None:
        now = self._clock()
        content = bytes(compose(mail, self._sender, now))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{now:%Y%m%d-%H%M%S}-{random_id()[:8]}"
        draft = self._folder / f".{name}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.rename(self._folder / f"{name}.eml")


def _read(path: Path) -> KeptMail:
    message = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    body = message.get_body(("plain",))
    return KeptMail(
        id=path.stem,
        written=message["Date"].datetime,
        to=str(message["To"]),
        subject=str(message["Subject"]),
        text="" if body is None else body.get_content().replace("\r\n", "\n"),
    )


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """The server that mails are handed to (RFC 5321, submission: RFC 6409)."""

    host: str
    port: int
    implicit_tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> SmtpServer:
        """The server of an address: `smtps://` is TLS from the first byte, `smtp://` turns to it (STARTTLS).

        Raises:
            ConfigurationError: it is no such address. The message does not repeat it: it holds a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError("TRANSOM_SMTP_URL is no address.") from error
        if parts.scheme not in {"smtp", "smtps"} or not host or parts.path.strip("/") or parts.query:
            raise ConfigurationError("TRANSOM_SMTP_URL is written smtps://user:password@host:465.")
        implicit = parts.scheme == "smtps"
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password or "") if user else None
        return cls(host, port or (465 if implicit else 587), implicit, user, password)


class SmtpMailer:
    """Hands mails to a server, in a thread.

    Nothing is sent in the clear, unless the server is on this machine and does not offer TLS.

    Args:
        server: where to.
        sender: the address in From, and where failures are reported to.
        tls: which certificates are believed; the system's, where left out.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._server = server
        self._sender = _checked_sender(sender)
        self._tls = tls or ssl.create_default_context()
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        """Hand one mail to the server, in a connection of its own."""
        message = compose(mail, self._sender, self._clock())
        try:
            await asyncio.to_thread(self._deliver, message, mail.to)
        except (OSError, smtplib.SMTPException) as error:
            # What a server says may repeat the address, or what we sent: the kind has to do.
            raise MailNotSent(f"The mail server did not take it: {type(error).__name__}.") from error

    def _deliver(self, message: EmailMessage, to: str) -> None:
        with self._connect() as connection:
            if self._server.user is not None:
                connection.login(self._server.user, self._server.password or "")
            connection.send_message(message, self._sender, [to])

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.implicit_tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_SECONDS, context=self._tls)
        connection = smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.ehlo()
            if connection.has_extn("starttls") or not is_loopback(server.host):
                connection.starttls(context=self._tls)
        except BaseException:
            connection.close()
            raise
        return connection


def _checked_sender(sender: str) -> str:
    try:
        return normal_email(sender)
    except InvalidRequest as error:
        raise ConfigurationError(f"TRANSOM_MAIL_FROM: {error.message}") from error
