"""`/sign-in`: where a link in a mail leads. Scanners of mail may fetch it; its button uses the link up."""

from __future__ import annotations

import base64
import hashlib

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = """
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1rem; }
button { font: inherit; padding: .5rem 1.5rem; }
"""

# The token stands behind `#`: it never reached a server with the page, and leaves the address bar at once.
_SCRIPT = """
const token = location.hash.slice(1);
const button = document.querySelector("button"), said = document.querySelector("output");
history.replaceState(null, "", location.pathname);
async function show() {
  const reply = await fetch("/v1/account");
  if (!reply.ok) return;
  const me = await reply.json();
  said.textContent = "You are signed in as " + (me.email || me.name || me.id) + ".";
}
async function signIn() {
  button.disabled = true;
  const reply = await fetch("/v1/auth/links/redeem", {
    method: "POST",
    headers: {"content-type": "application/json", "x-transom-csrf": "1"},
    body: JSON.stringify({token, session: "cookie"}),
  });
  const body = await reply.json();
  if (!reply.ok) { said.textContent = body.error.message; return; }
  if (body.next) { location.replace(body.next); return; }
  button.hidden = true;
  await show();
}
if (token) { button.hidden = false; button.addEventListener("click", signIn); } else { show(); }
"""

_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>Sign in to Transom</title>
<style>{_STYLE}</style>
<h1>Transom</h1>
<p><button hidden>Sign in</button></p>
<p><output></output></p>
<noscript><p>This page needs a script. Or enter the code from the mail where you asked for it.</p></noscript>
<script>{_SCRIPT}</script>
</html>
"""


def _hash_of(text: str) -> str:
    """As Content Security Policy level 3 names what stands in a page."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src {_hash_of(_SCRIPT)}; style-src {_hash_of(_STYLE)}; "
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
