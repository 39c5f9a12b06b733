"""Which providers of identity the operator lets people sign in with: `providers.toml`."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from transom.access.people.origin import is_safe_transport
from transom.errors import ConfigurationError

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")

Url = Annotated[str, Field(max_length=1024)]


class Provider(BaseModel):
    """One provider. `oidc` is OpenID Connect; `oauth2` is OAuth 2 with a page that says who somebody is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, description="What people see")
    kind: Literal["oidc", "oauth2"] = "oidc"
    issuer: Annotated[str, Field(min_length=1, max_length=255)]
    client_id: str = Field(min_length=1, max_length=500)
    client_secret: SecretStr | None = None
    auth_method: Literal["client_secret_basic", "client_secret_post", "none"] | None = None
    scopes: tuple[str, ...] | None = None
    trust_email: bool = Field(
        default=False,
        description="Whether an address that it calls verified opens the account that has this address",
    )
    authorization_endpoint: Url | None = None
    token_endpoint: Url | None = None
    userinfo_endpoint: Url | None = None
    subject: str = Field(default="id", description="Field of the user page that never changes")

    @property
    def scope(self) -> str:
        """What is asked of the provider."""
        usual = () if self.kind == "oauth2" else ("openid", "email") if self.trust_email else ("openid",)
        return " ".join(usual if self.scopes is None else self.scopes)

    @property
    def secret(self) -> str | None:
        """The client's secret."""
        return None if self.client_secret is None else self.client_secret.get_secret_value()

    @property
    def client_auth(self) -> str:
        """How the client proves itself at the token endpoint."""
        return self.auth_method or ("none" if self.client_secret is None else "client_secret_basic")

    @model_validator(mode="after")
    def _consistent(self) -> Provider:
        places = (self.authorization_endpoint, self.token_endpoint, self.userinfo_endpoint)
        if self.kind == "oauth2" and (None in places or self.trust_email):
            raise ValueError("oauth2 needs its three endpoints, and cannot be trusted with addresses")
        if self.kind == "oidc" and places != (None, None, None):
            raise ValueError("oidc finds its endpoints by itself; remove them")
        if self.kind == "oidc" and "openid" not in self.scope.split():
            raise ValueError("oidc needs the scope openid")
        if (self.client_auth != "none") != (self.client_secret is not None):
            raise ValueError("auth_method and client_secret contradict each other")
        if not all(is_safe_transport(url) for url in (self.issuer, *filter(None, places))):
            raise ValueError("addresses have to be https, unless they are on this machine")
        return self


def load(path: Path) -> dict[str, Provider]:
    """The providers of a file, by the name of their table; none where there is no file.

    Raises:
        ConfigurationError: others can read the file, or it is not as it should be. No secret is repeated.
    """
    if not path.exists():
        return {}
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ConfigurationError(f"{path} holds secrets and can be read by others: chmod 600 it.")
        try:
            tables = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} is no TOML: {error}.") from error
    return parse(tables, str(path))


def parse(tables: Mapping[str, Any], source: str) -> dict[str, Provider]:
    """The providers of tables that were read from `source`.

    Raises:
        ConfigurationError: something in them is wrong; the message names table and field.
    """
    found = {name: _provider(name, table, source) for name, table in tables.items()}
    if len({provider.issuer for provider in found.values()}) < len(found):
        raise ConfigurationError(f"{source}: two tables have one issuer; an identity would be ambiguous.")
    return found


def _provider(name: str, table: object, source: str) -> Provider:
    if not _ID.fullmatch(name):
        raise ConfigurationError(f"{source}: [{name}] is no name; use small letters, digits and dashes.")
    try:
        return Provider.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join([name, *map(str, first["loc"])])
        raise ConfigurationError(f"{source}: {field}: {first['msg']}.") from error
