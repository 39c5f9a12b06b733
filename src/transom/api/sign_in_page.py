"""`/sign-in`: where people sign in with a browser, and where a link in a mail leads.

Scanners of mail may fetch it; its button uses the link up. The page is one file to browsers: style and script
stand in it, and its policy names them by their hashes, so that nothing else runs or is loaded.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


def _part(name: str) -> str:
    return files("transom.api").joinpath("pages", name).read_text(encoding="utf-8")


_STYLE, _SCRIPT = _part("sign_in.css"), _part("sign_in.js")

_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Sign in to Transom</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
{_part("sign_in.html")}
<script>{_SCRIPT}</script>
</html>
"""


def _hash_of(text: str) -> str:
    """As Content Security Policy level 3 names what stands in a page."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src {_hash_of(_SCRIPT)}; style-src {_hash_of(_STYLE)}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@router.get("/sign-in")
async def sign_in_page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)
