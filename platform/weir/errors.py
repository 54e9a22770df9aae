"""weir's errors: one small tree. Each class knows its HTTP status, OpenAI type and code, and
whether a retry can help. :func:`error_body` is the one place that renders them."""

from __future__ import annotations

from typing import Any, ClassVar


class WeirError(Exception):
    """Base of everything weir raises on purpose.

    ``param`` names the request field (or config path) at fault; ``retry_after_s`` is given when
    a retry can help. ``hopeless``: a retry would cost as much and fail again. ``request_id`` is
    filled in where the error is answered.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"
    retryable: ClassVar[bool] = False
    hopeless: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.request_id = ""


class InternalError(WeirError):
    """A fault of weir's own; the log has the rest."""


class ConfigError(WeirError):
    """The settings cannot be used. Seen by operators, never by tenants."""

    code = "config_error"


class BadRequestError(WeirError):
    """The request is malformed or out of range; ``param`` says where."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthError(BadRequestError):
    """Prompt plus requested output do not fit the model's context."""

    code = "context_length_exceeded"


class PreviousResponseError(BadRequestError):
    """The response that a request goes on from is not kept (for this tenant), or has not ended."""

    code = "previous_response_not_found"


class UnsupportedError(BadRequestError):
    """The model or the platform does not offer this operation."""

    code = "unsupported_operation"


class AuthenticationError(WeirError):
    """No key, or a key nobody holds."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(WeirError):
    """The key is good, but not for this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class ModelNotFoundError(WeirError):
    """No model of that name is served (to this tenant)."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class NotFoundError(WeirError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowedError(WeirError):
    """The path exists, but not for this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class ConflictError(WeirError):
    """What is there already stands against it."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class FileInUseError(ConflictError):
    """A batch job reads the file."""

    code = "file_in_use"


class StorageFullError(PermissionDeniedError):
    """The tenant keeps as many files, or as many bytes of them, as it may."""

    code = "storage_full"


class VersionMismatchError(WeirError):
    """What was to be changed has changed since it was read."""

    status = 412
    type = "invalid_request_error"
    code = "version_mismatch"


class PreconditionRequiredError(WeirError):
    """The change must say, by ``If-Match``, which version it changes."""

    status = 428
    type = "invalid_request_error"
    code = "precondition_required"


class IdempotencyError(WeirError):
    """The idempotency key was used before, for another request."""

    status = 422
    type = "invalid_request_error"
    code = "idempotency_key_reused"


class RequestTimeoutError(WeirError):
    """The client did not send its body in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class BodyTooLargeError(WeirError):
    """The body exceeds ``server.max_body_bytes``."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class RangeError(WeirError):
    """There is nothing in the part that was asked for."""

    status = 416
    type = "invalid_request_error"
    code = "range_not_satisfiable"


class UnsupportedMediaTypeError(WeirError):
    """The body is not JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimitError(WeirError):
    """The tenant is over a limit of its own."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


class InsufficientQuotaError(WeirError):
    """The tenant's budget does not allow the request, and will not before it is renewed."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    hopeless = True


class AccountAwayError(WeirError):
    """What the tenant may still use cannot be looked up now."""

    status = 503
    type = "overloaded_error"
    code = "account_away"
    retryable = True


class OverloadedError(WeirError):
    """The platform has no room for the request now."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"
    retryable = True


class NoReplicaError(OverloadedError):
    """No replica of the model is up."""

    code = "no_replica"


class DatabaseAwayError(OverloadedError):
    """The database does not answer now. Requests of models need none."""

    code = "database_away"


class StorageAwayError(OverloadedError):
    """The storage of files does not answer now."""

    code = "storage_away"


class ReplicaFailedError(WeirError):
    """The replica that served the request failed, and no other could take over."""

    status = 502
    type = "server_error"
    code = "replica_failed"
    retryable = True


class RequestFailedError(WeirError):
    """Replica after replica failed on the request: it is the request's own fault."""

    code = "request_failed"
    hopeless = True


class GenerationTimeoutError(WeirError):
    """The answer took longer than ``server.request_timeout_s``; again it would, too."""

    status = 504
    code = "generation_timeout"
    hopeless = True


def forget_frames(error: BaseException) -> None:
    """Drop the frames that an error has come through, its causes' too.

    A frame keeps what its function had in hand, for instance a body of megabytes. An error that is
    kept, in the record of its request, would keep all of it; and where a frame has the record, they
    keep each other until the garbage collector's rarest turn.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__


def error_body(error: WeirError) -> dict[str, Any]:
    """OpenAI's error object: ``{"error": {message, type, param, code}}``."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_headers(error: WeirError) -> dict[str, str]:
    """HTTP headers that go with an error: ``Retry-After`` in whole seconds, at least 1;
    ``WWW-Authenticate`` with a 401. OpenAI's clients send whatever failed with 500 or more again,
    unless ``x-should-retry`` forbids it."""
    if error.status == 401:
        return {"www-authenticate": 'Bearer realm="weir"'}
    if error.hopeless:
        return {"x-should-retry": "false"}
    if not error.retryable:
        return {}
    return {"retry-after": str(max(1, round(error.retry_after_s or 1.0)))}
