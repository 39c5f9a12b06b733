"""What is exported is what is documented: a name more or less is a decision, made here."""

from __future__ import annotations

import re

import transom
import transom.client
from tests.documents import ROOT

TOP = ["AsyncClient", "Client", "__version__"]

CLIENT = [
    "Activations",
    "AsyncClient",
    "AsyncLanguageModel",
    "Chat",
    "ChatChunk",
    "Client",
    "Completion",
    "CompletionChunk",
    "Distribution",
    "LanguageModel",
    "Lens",
    "MeasuredToken",
    "Metric",
    "Model",
    "Patching",
    "RateLimited",
    "Scored",
    "ScoredAnswer",
    "ScoredToken",
    "Scores",
    "ServerUnreachable",
    "Steered",
    "Tensor",
    "Tokens",
    "Trace",
    "Traced",
    "UnexpectedReply",
    "Usage",
    "Value",
    "kl",
    "logit_diff",
    "logprob",
    "verify_record",
]


def test_the_top_exports_what_is_documented():
    assert transom.__all__ == TOP == sorted(TOP)


def test_the_client_exports_what_is_documented():
    assert transom.client.__all__ == CLIENT == sorted(CLIENT)


def test_every_name_is_there():
    assert all(hasattr(transom, name) for name in TOP)
    assert all(getattr(transom.client, name).__doc__ for name in CLIENT)


def test_the_clients_page_names_them():
    page = (ROOT / "docs" / "reference" / "client.md").read_text(encoding="utf-8")
    names = page.split("## Client and AsyncClient")[0]
    assert sorted(set(re.findall(r"^\| `(\w+)` \|", names, re.MULTILINE))) == CLIENT


def test_the_two_clients_have_the_same_methods():
    def public(kind):
        return {name for name in vars(kind) if not name.startswith("_")} - {"close", "aclose"}

    assert public(transom.Client) == public(transom.AsyncClient)
