"""The request for one's usage, as data."""

from __future__ import annotations

from transom.client.operations import Operation
from transom.schema.usage import UsageView


def usage(days: int) -> Operation[UsageView]:
    """`GET /v1/usage`."""
    return Operation("GET", "/v1/usage", UsageView.model_validate_json, params={"days": days})
