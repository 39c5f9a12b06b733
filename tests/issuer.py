"""A provider of identity on loopback: discovery, authorization, tokens, keys, user pages; honest until told.

It is strict with its clients: it checks redirect address, PKCE, the client's secret, and that a code is used
once. What it says can be bent through `Bend`, one lie at a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

CLIENT_ID, CLIENT_SECRET = "transom-at-test", "s3cret & more"

Change = Callable[[dict[str, Any]], dict[str, Any]]


def unchanged(document: dict[str, Any]) -> dict[str, Any]:
    return document


@dataclass
class Bend:
    """What is not as it should be."""

    metadata: Change = unchanged
    claims: Change = unchanged
    redirect: Change = unchanged
    token: Change = unchanged
    user: Change = unchanged
    sign: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
    """Makes the ID token, from header and claims."""
    down: set[str] = field(default_factory=set)
    """Paths that answer 500."""


@dataclass
class Grant:
    parameters: dict[str, str]
    used: bool = False


class Issuer:
    """The provider. `user` is who is signed in there and agrees to everything."""

    def __init__(self, clock: Callable[[], Any]) -> None:
        self.clock = clock
        self.user: dict[str, Any] = {"sub": "ada", "name": "Ada L."}
        self.page: dict[str, Any] = {"id": 4711, "name": "Ada L.", "login": "ada"}
        self.bend = Bend()
        self.algorithm = "RS256"
        self.asked: list[str] = []
        self.redirect_uris: set[str] = set()
        self._grants: dict[str, Grant] = {}
        self.rotate()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def rotate(self) -> None:
        """New keys, under new names."""
        name = secrets.token_hex(4)
        self.rsa = RSAKey.generate_key(2048, {"kid": f"rsa-{name}", "use": "sig", "alg": "RS256"})
        self.ec = ECKey.generate_key("P-256", {"kid": f"ec-{name}", "use": "sig", "alg": "ES256"})

    @property
    def key(self) -> Any:
        return self.ec if self.algorithm == "ES256" else self.rsa

    def metadata(self) -> dict[str, Any]:
        return self.bend.metadata(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    def authorize(self, query: dict[str, str]) -> tuple[int, dict[str, str]]:
        """RFC 6749 4.1.1; a wrong client or address is told to the person and never redirected."""
        if query.get("client_id") != CLIENT_ID or query.get("redirect_uri") not in self.redirect_uris:
            return 400, {}
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            return 400, {}
        if "openid" in query.get("scope", "") and not query.get("nonce"):
            return 400, {}
        code = secrets.token_urlsafe(16)
        self._grants[code] = Grant(query)
        named = {"iss": self.url} if "openid" in query.get("scope", "") else {}
        answer = self.bend.redirect({"code": code, "state": query["state"], **named})
        return 302, {"location": query["redirect_uri"] + "?" + urlencode(answer)}

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        if not _is_client(form, authorization):
            return 401, {"error": "invalid_client"}
        grant = self._grants.get(form.get("code", ""))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            grant is None
            or grant.used
            or form.get("redirect_uri") != grant.parameters["redirect_uri"]
            or challenge.rstrip(b"=").decode() != grant.parameters["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        grant.used = True
        access = secrets.token_urlsafe(16)
        token = {"access_token": access, "token_type": "Bearer", "expires_in": 60}
        if "openid" in grant.parameters.get("scope", ""):
            token["id_token"] = self.id_token(grant.parameters, access)
        return 200, self.bend.token(token)

    def id_token(self, asked: dict[str, str], access: str) -> str:
        now = int(self.clock().timestamp())
        digest = hashlib.sha256(access.encode()).digest()[:16]
        claims = self.bend.claims(
            {
                "iss": self.url,
                "aud": CLIENT_ID,
                "iat": now,
                "exp": now + 300,
                "nonce": asked["nonce"],
                "at_hash": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
                **self.user,
            }
        )
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.bend.sign is not None:
            return self.bend.sign(header, claims)
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])

    def answer(self, method: str, target: str, body: str, authorization: str) -> tuple[int, dict, Any]:
        parts = urlsplit(target)
        self.asked.append(f"{method} {parts.path}")
        if parts.path in self.bend.down:
            return 500, {}, {"error": "server_error"}
        match method, parts.path:
            case "GET", "/authorize":
                status, headers = self.authorize(dict(parse_qsl(parts.query)))
                return status, headers, {}
            case "POST", "/token":
                form = {name: values[0] for name, values in parse_qs(body).items()}
                status, token = self.token(form, authorization)
                return status, {}, token
            case "GET", path if path in self._pages(authorization):
                return 200, {}, self._pages(authorization)[path]()
        return 404, {}, {}

    def _pages(self, authorization: str) -> dict[str, Callable[[], Any]]:
        public = {
            "/.well-known/openid-configuration": self.metadata,
            "/jwks": lambda: KeySet([self.rsa, self.ec]).as_dict(private=False),
        }
        users = {
            "/userinfo": lambda: self.bend.user(dict(self.user)),
            "/user": lambda: self.bend.user(dict(self.page)),
        }
        return public | (users if authorization.startswith("Bearer ") else {})

    def _handler(issuer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["content-length"])).decode())

            def _answer(self, body: str) -> None:
                authorization = self.headers.get("authorization", "")
                status, headers, document = issuer.answer(self.command, self.path, body, authorization)
                content = json.dumps(document).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _is_client(form: dict[str, str], authorization: str) -> bool:
    if authorization.startswith("Basic "):
        user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
        return (unquote(user), unquote(password)) == (CLIENT_ID, CLIENT_SECRET)
    return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)


@contextmanager
def running_issuer(clock: Callable[[], Any]):
    issuer = Issuer(clock)
    issuer.start()
    try:
        yield issuer
    finally:
        issuer.stop()
