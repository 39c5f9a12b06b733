"""Every error that Transom raises on purpose, in one tree.

    TransomError
    ├── RequestError                 the caller can mend it
    │   ├── InvalidRequest           a field is wrong: `param` names it
    │   │   └── UnsupportedParameter a field that is known, but not honoured here
    │   ├── PayloadTooLarge
    │   ├── NotFound
    │   ├── Conflict                 it cannot be done in the state that things are in
    │   ├── AccessDenied
    │   │   ├── Unauthenticated      no key, or one that does not check out
    │   │   └── Forbidden            a key or a person that may not do this
    │   │       ├── MissingScope     the grant, or the key, lacks a scope
    │   │       ├── TermsNotAccepted
    │   │       └── Suspended
    │   ├── PolicyRefused            it would tell too much about the weights
    │   └── QuotaExceeded            a limit is used up: for now, or for good
    ├── EngineError                  the model column could not answer
    │   ├── EngineUnavailable        it may a moment later
    │   │   └── EngineBusy           it may when others have finished
    │   └── GenerationFailed         this request failed, the engine goes on
    ├── SignInUnavailable            a provider of identity cannot be asked
    ├── QuotaUnavailable             nobody can say whether a limit is kept, so nothing is let through
    ├── NotInstalled                 what it takes is not installed here
    ├── StorageError                 something is not on disk
    └── OperatorError                only an operator can mend it
        ├── ModelRefused             a model that cannot be served exactly
        └── ConfigurationError

Doors translate an error to HTTP; nothing below a door knows status codes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Layer = Literal["api", "access", "quota", "policy", "engine", "records"]


class TransomError(Exception):
    """Base of all; `message` is written for the person who will read it."""

    code: ClassVar[str] = "internal_error"
    layer: ClassVar[Layer] = "api"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(TransomError):
    """The caller asked for something that cannot be done as asked."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.reason = code or type(self).code


class InvalidRequest(RequestError):
    """A field has a wrong type or value; `param` names it, the message says the remedy."""

    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    """A field that this server does not honour; nothing is ever silently ignored."""

    code = "unsupported_parameter"


class PlanFailed(InvalidRequest):
    """A plan cannot be carried out on the values that it met; the message says at which of its parts."""

    code = "plan_failed"
    layer = "engine"


class PayloadTooLarge(RequestError):
    """The body is larger than the server reads."""

    code = "payload_too_large"


class NotFound(RequestError):
    """What was named does not exist, or the caller may not know that it does."""

    code = "not_found"


class Conflict(RequestError):
    """It cannot be done in the state that things are in; the message says in which it could."""

    code = "conflict"


class AccessDenied(RequestError):
    """Access said no."""

    layer = "access"


class Unauthenticated(AccessDenied):
    """No key was sent, or the key is malformed, unknown, expired or revoked."""

    code = "invalid_api_key"


class Forbidden(AccessDenied):
    """The key is good and does not allow this."""

    code = "permission_denied"


class MissingScope(Forbidden):
    """A scope is missing; the message names it, and says how to ask for it."""

    code = "insufficient_scope"

    def __init__(self, message: str, *, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class PolicyRefused(RequestError):
    """It would tell too much about the weights; nothing was told, and nothing was charged."""

    code = "policy_refused"
    layer = "policy"


class TermsNotAccepted(Forbidden):
    """The terms have a version that this person has not accepted yet."""

    code = "terms_not_accepted"


class Suspended(Forbidden):
    """A person of the operator's suspended this; the message gives their reason."""

    code = "suspended"


class QuotaExceeded(RequestError):
    """A limit is used up, and nothing was charged.

    The code is `rate_limit_exceeded` where `retry_after` says when the same request will pass, and
    `insufficient_quota` where waiting does not help.
    """

    code = "rate_limit_exceeded"
    layer = "quota"

    def __init__(self, message: str, *, retry_after: int | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code or (None if retry_after is not None else "insufficient_quota"))
        self.retry_after = retry_after
        """Whole seconds, rounded up; None where waiting does not help."""


class SignInUnavailable(TransomError):
    """A provider of identity cannot be reached, or says nothing usable; another way in may be open."""

    code = "sign_in_unavailable"
    layer = "access"

    def __init__(self, message: str, *, retry_after: int = 60) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaUnavailable(TransomError):
    """The counters cannot be reached; nothing is let through unmetered."""

    code = "quota_unavailable"
    layer = "quota"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineError(TransomError):
    """The model column could not answer."""

    code = "engine_error"
    layer = "engine"


class EngineUnavailable(EngineError):
    """The engine is starting, restarting or going away; the same request may pass later."""

    code = "engine_unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineBusy(EngineUnavailable):
    """The queue is full, or the project's share of it; nothing was taken, and `retry_after` is reckoned."""

    code = "server_overloaded"


class GenerationFailed(EngineError):
    """One request failed inside the engine; others were not touched."""

    code = "generation_failed"


class StorageError(TransomError):
    """The database did not take a write, or is closed.

    After a failed commit the write was not acknowledged, and is most likely not there: only a disk that
    failed halfway through may still hold it.
    """

    code = "storage_error"
    layer = "records"


class NotInstalled(TransomError):
    """What it takes is not installed here; the message says how to install it."""

    code = "not_installed"


class NotVerified(TransomError):
    """A signature, proof or file of a log is not what it should be; the message says which."""

    code = "not_verified"
    layer = "records"


class LogBroken(TransomError):
    """A log cannot be continued as it lies on disk without contradicting what was published."""

    code = "log_broken"
    layer = "records"


class LogTaken(LogBroken):
    """Another process writes the log, which is as it should be."""


class OperatorError(TransomError):
    """Something that only the operator can mend; printed by the command line."""

    code = "operator_error"


class ModelRefused(OperatorError):
    """The model cannot be served exactly; the message says why."""

    code = "model_refused"
    layer = "engine"


class ConfigurationError(OperatorError):
    """A setting is missing or contradicts another."""

    code = "configuration_error"
