"""Mails, in the folder and by a real SMTP server on loopback."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email import policy
from email.parser import BytesParser
from ipaddress import ip_address

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from transom.access.people import mail as mail_module
from transom.access.people.mail import Mail, MailFolder, MailNotSent, SmtpMailer, SmtpServer, compose
from transom.errors import ConfigurationError, NotFound

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 31, 9, 5, tzinfo=UTC)
LETTER = Mail("ada@example.org", "Sign in", "Open\n\n    https://x.example.org/sign-in#tl_" + "a" * 72 + "\n")
SENDER = "transom@example.org"


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestCompose:
    def test_a_link_stays_in_one_piece(self):
        assert "#tl_" + "a" * 72 + "\r\n" in bytes(compose(LETTER, SENDER, NOW)).decode()

    def test_headers_are_whole(self):
        message = BytesParser(policy=policy.default).parsebytes(bytes(compose(LETTER, SENDER, NOW)))
        assert message["To"] == "ada@example.org"
        assert message["From"].addresses[0].addr_spec == SENDER
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Date"].datetime == NOW
        assert message["Message-ID"].endswith("@example.org>")

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\r\n "])
    @pytest.mark.parametrize("field", ["to", "subject"])
    def test_a_header_cannot_be_slipped_in(self, field, end):
        fields = {"to": LETTER.to, "subject": LETTER.subject, "text": LETTER.text}
        fields[field] += f"{end}Bcc: eve@example.org"
        with pytest.raises((ValueError, TypeError)):
            compose(Mail(**fields), SENDER, NOW)

    def test_a_line_end_in_the_text_ends_no_mail(self):
        mail = Mail(LETTER.to, LETTER.subject, "a\n.\nRCPT TO: <eve@example.org>\n")
        assert b"\r\n.\r\nRCPT" in bytes(compose(mail, SENDER, NOW))


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        return MailFolder(tmp_path / "mail", clock=lambda: NOW)

    async def test_what_was_written_is_read_again(self, folder):
        await folder.send(LETTER)
        await folder.send(Mail("eve@example.org", "Other", "Text\n"))
        first, second = folder.list_mails()
        assert (first.to, first.subject, first.text, first.written) == (
            LETTER.to,
            LETTER.subject,
            LETTER.text,
            NOW,
        )
        assert folder.get(second.id) == second

    async def test_only_the_owner_reads_it(self, folder, tmp_path):
        await folder.send(LETTER)
        (file,) = (tmp_path / "mail").iterdir()
        assert (file.suffix, file.stat().st_mode & 0o777) == (".eml", 0o600)
        assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700

    def test_an_empty_folder_is_empty(self, folder):
        assert folder.list_mails() == []

    @pytest.mark.parametrize("name", ["x", "../secret", "", "*"])
    async def test_no_other_file_is_read(self, folder, tmp_path, name):
        (tmp_path / "secret.eml").write_text("Subject: x\n\nsecret")
        await folder.send(LETTER)
        with pytest.raises(NotFound):
            folder.get(name)

    async def test_a_folder_that_cannot_be_written_is_said(self, tmp_path):
        (tmp_path / "mail").write_text("a file")
        with pytest.raises(MailNotSent):
            await MailFolder(tmp_path / "mail").send(LETTER)


class Box:
    """What arrived."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content, session.ssl is not None))
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    day = timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - day)
        .not_valid_after(datetime.now(UTC) + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


@pytest.fixture
def server_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate / "cert.pem"))


@pytest.fixture
def smtp():
    """Starts servers, and stops them."""
    running = []

    def start(**options):
        box = Box()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        controller = Controller(box, hostname="127.0.0.1", port=port, **options)
        controller.start()
        running.append(controller)
        return box, port

    yield start
    for controller in running:
        controller.stop()


def only_ada(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"ada", b"p@ss:word"))


class TestSmtp:
    async def test_a_server_on_this_machine_without_tls(self, smtp):
        box, port = smtp()
        await SmtpMailer(SmtpServer.parse(f"smtp://127.0.0.1:{port}"), SENDER).send(LETTER)
        ((sender, to, content, encrypted),) = box.mails
        assert (sender, to, encrypted) == (SENDER, [LETTER.to], False)
        message = BytesParser(policy=policy.default).parsebytes(content)
        assert message.get_content().replace("\r\n", "\n").strip() == LETTER.text.strip()

    async def test_starttls_is_used_where_it_is_offered_and_then_a_password(self, smtp, server_tls, trusting):
        box, port = smtp(tls_context=server_tls, authenticator=only_ada, auth_required=True)
        server = SmtpServer.parse(f"smtp://ada:p%40ss%3Aword@127.0.0.1:{port}")
        await SmtpMailer(server, SENDER, tls=trusting).send(LETTER)
        assert box.mails[0][3]

    async def test_tls_from_the_first_byte(self, smtp, server_tls, trusting):
        box, port = smtp(ssl_context=server_tls)
        await SmtpMailer(SmtpServer.parse(f"smtps://127.0.0.1:{port}"), SENDER, tls=trusting).send(LETTER)
        assert len(box.mails) == 1

    @pytest.mark.parametrize("options", [{"ssl_context": True}, {"tls_context": True}], ids=str)
    async def test_a_certificate_that_is_not_believed_ends_it(self, smtp, server_tls, options):
        box, port = smtp(**dict.fromkeys(options, server_tls))
        scheme = "smtps" if "ssl_context" in options else "smtp"
        with pytest.raises(MailNotSent):
            await SmtpMailer(SmtpServer.parse(f"{scheme}://127.0.0.1:{port}"), SENDER).send(LETTER)
        assert box.mails == []

    async def test_beyond_this_machine_nothing_is_sent_in_the_clear(self, smtp, monkeypatch):
        box, port = smtp()
        monkeypatch.setattr(mail_module, "is_loopback", lambda host: False)
        with pytest.raises(MailNotSent):
            await SmtpMailer(SmtpServer.parse(f"smtp://127.0.0.1:{port}"), SENDER).send(LETTER)
        assert box.mails == []

    async def test_a_wrong_password_is_not_repeated_in_the_error(self, smtp, server_tls, trusting):
        _, port = smtp(tls_context=server_tls, authenticator=only_ada, auth_required=True)
        server = SmtpServer.parse(f"smtp://ada:wrong-one@127.0.0.1:{port}")
        with pytest.raises(MailNotSent) as refused:
            await SmtpMailer(server, SENDER, tls=trusting).send(LETTER)
        assert "wrong-one" not in str(refused.value)
        assert "SMTP" in str(refused.value)
        assert "wrong-one" not in repr(server)

    async def test_nobody_there(self):
        with pytest.raises(MailNotSent):
            await SmtpMailer(SmtpServer.parse("smtp://127.0.0.1:9"), SENDER).send(LETTER)

    @pytest.mark.parametrize(
        "url",
        ["", "localhost", "http://h", "smtp://", "smtp://h/path", "smtp://h?x=1", "smtp://h:port", "smtps:"],
    )
    def test_what_is_no_address_of_a_server(self, url):
        with pytest.raises(ConfigurationError, match="TRANSOM_SMTP_URL"):
            SmtpServer.parse(url)

    def test_a_bad_address_is_not_repeated_since_it_may_hold_a_password(self):
        with pytest.raises(ConfigurationError) as refused:
            SmtpServer.parse("smtp://ada:secret@h/path")
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(("url", "port"), [("smtps://h", 465), ("smtp://h", 587), ("smtp://h:25", 25)])
    def test_usual_ports(self, url, port):
        assert SmtpServer.parse(url).port == port

    def test_a_sender_is_an_address(self):
        with pytest.raises(ConfigurationError, match="TRANSOM_MAIL_FROM"):
            SmtpMailer(SmtpServer.parse("smtp://h"), "Transom")


def test_no_mail_is_shown_by_accident():
    assert "tl_" not in repr(LETTER)
