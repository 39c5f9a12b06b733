"""Where thieves try a sign-in: a street with a provider at it, and what is kept behind its door."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tests.http.guests import open_street


@pytest.fixture
async def street(tokenizer, tmp_path):
    """A street with a provider that is never asked anything."""
    providers = tmp_path / "providers.toml"
    providers.write_text(
        '[uni]\nname = "U"\nkind = "oauth2"\nissuer = "https://id.example.org"\nclient_id = "x"\n'
        'authorization_endpoint = "https://id.example.org/a"\ntoken_endpoint = "https://id.example.org/t"\n'
        'userinfo_endpoint = "https://id.example.org/u"\n'
    )
    providers.chmod(0o600)
    async with open_street(tmp_path, tokenizer) as street:
        yield street


async def count(street, table) -> int:
    """How many rows a table has."""
    database = street.door.house.entrance._database
    return await database.read(lambda connection: len(connection.execute(select(table)).all()))
