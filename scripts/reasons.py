"""Codes of errors that are not named after a class: status, and when they are given."""

from __future__ import annotations

REASONS = {
    "asked_elsewhere": (401, "a sign-in link was opened where it was not asked for"),
    "unknown_point": (400, "the model has no such point, or it cannot be reached in this architecture"),
    "plan_too_large": (400, "the values of a plan, or its answer, would take more room than one may"),
    "context_length_exceeded": (400, "prompt and `max_tokens` together are longer than the model's context"),
    "cross_site_request": (
        403,
        "a session in a cookie, and no proof that a page of this server sent the request",
    ),
    "insufficient_quota": (429, "a total is used up, or a request is larger than a limit: do not wait"),
    "artifact_too_large": (413, "an artifact is larger than the server keeps"),
    "invalid_artifact": (
        400,
        "what was uploaded is no safetensors file of finite numbers that plans can take",
    ),
    "unknown_artifact": (400, "a plan takes an artifact, or a tensor of one, that the project has not"),
    "invalid_json": (400, "the body is empty, or not JSON in UTF-8"),
    "invalid_link": (401, "a sign-in link or its code is wrong, used or too old"),
    "invalid_passkey": (401, "a passkey is unknown, or its answer is not good"),
    "invalid_session": (401, "nobody is signed in, or the session has ended"),
    "method_not_allowed": (405, "the path exists, and not with this method"),
    "missing_parameter": (400, "a field that is required is absent or null"),
    "model_not_granted": (403, "the project's grant does not open this model"),
    "model_not_found": (404, "no model of that name is served here"),
    "range_not_satisfiable": (416, "a byte range that begins beyond the end of a file"),
    "unknown_commitment": (400, "no such promise of a seed waits for a request of this project"),
    "receipt_pending": (404, "the record is not yet under a checkpoint of the log; ask again in a second"),
    "recent_sign_in_needed": (403, "this needs a sign-in of the last ten minutes"),
    "secret_in_url": (400, "a key, a session or a link's token stands in the address"),
    "sign_in_failed": (401, "a provider refused, or what it said does not hold"),
    "stale_challenge": (401, "an answer to something that was not asked, or was answered, or asked long ago"),
    "unknown_parameter": (400, "a field that this endpoint does not know"),
    "unsupported_media_type": (
        415,
        "the content type is another than the endpoint takes, mostly `application/json`",
    ),
}
