"""What the API server says when it refuses, in its own words: the Status object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .resources import Resource

Json = dict[str, Any]


class Problem(Exception):
    """A refusal. `status()` is what a client gets."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Json:
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            body["details"] = self.details
        return body


def _details(group: str, plural: str, name: str) -> Json:
    return {"name": name, **({"group": group} if group else {}), "kind": plural}


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def unauthorized() -> Problem:
    return Problem(401, "Unauthorized", "Unauthorized")


def forbidden(
    user: str, verb: str, resource: Resource, namespace: str, name: str, sub: str
) -> Problem:
    what = f"{resource.plural}/{sub}" if sub else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    qualified = _qualified(resource.group, resource.plural)
    text = (
        f"{qualified}{f' {chr(34)}{name}{chr(34)}' if name else ''} is forbidden: "
        f'User "{user}" cannot {verb} resource "{what}" in API group "{resource.group}" {where}'
    )
    return Problem(403, "Forbidden", text, _details(resource.group, resource.plural, name))


def refused(resource: Resource, name: str, why: str) -> Problem:
    """A request that no one may make, whatever the rights."""
    text = f'{_qualified(resource.group, resource.plural)} "{name}" is forbidden: {why}'
    return Problem(403, "Forbidden", text, _details(resource.group, resource.plural, name))


def too_large() -> Problem:
    text = "Request entity too large: limit is 3145728"
    return Problem(413, "RequestEntityTooLarge", text, {})


def unsupported_media(kinds: str) -> Problem:
    text = (
        "the body of the request was in an unknown format - accepted media types include: " + kinds
    )
    return Problem(415, "UnsupportedMediaType", text, {})


def ordered(code: int) -> Problem:
    """What a fault on order makes of a call."""
    reason, text = {
        403: ("Forbidden", "forbidden by a fault on order"),
        429: ("TooManyRequests", "the server has received too many requests"),
        503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504: ("Timeout", "the server was unable to return a response in the time allotted"),
    }.get(code, ("InternalError", "an error on the server, by a fault on order"))
    details = {"retryAfterSeconds": 1} if code in (429, 503, 504) else {}
    return Problem(code, reason, text, details)


def not_found(group: str, plural: str, name: str) -> Problem:
    text = f'{_qualified(group, plural)} "{name}" not found'
    return Problem(404, "NotFound", text, _details(group, plural, name))


def no_such_resource(what: str = "") -> Problem:
    """The server's own answer for a kind that it does not serve; `what` names it."""
    text = "the server could not find the requested resource"
    if what:
        text += f" (not implemented by this stand-in: {what})"
    return Problem(404, "NotFound", text, {})


def method_not_allowed(method: str) -> Problem:
    text = f"the server does not allow this method on the requested resource: {method}"
    return Problem(405, "MethodNotAllowed", text, {})


def already_exists(group: str, plural: str, name: str) -> Problem:
    text = f'{_qualified(group, plural)} "{name}" already exists'
    return Problem(409, "AlreadyExists", text, _details(group, plural, name))


def conflict(group: str, plural: str, name: str, cause: str = "") -> Problem:
    cause = cause or (
        "the object has been modified; please apply your changes to the latest version and "
        "try again"
    )
    text = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {cause}'
    return Problem(409, "Conflict", text, _details(group, plural, name))


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequest", message)


def expired(message: str) -> Problem:
    return Problem(410, "Expired", message)


def from_the_future(version: int, current: int) -> Problem:
    text = f"Too large resource version: {version}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Problem(504, "Timeout", text, {"causes": [cause], "retryAfterSeconds": 1})


class Causes(list[Json]):
    """Collects what is wrong with an object, field by field."""

    def _add(self, reason: str, field: str, message: str) -> None:
        self.append({"reason": reason, "message": message, "field": field})

    def required(self, field: str, detail: str = "") -> None:
        self._add("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))

    def invalid(self, field: str, value: Any, detail: str) -> None:
        shown = f'"{value}"' if isinstance(value, str) else _go(value)
        self._add("FieldValueInvalid", field, f"Invalid value: {shown}: {detail}")

    def unsupported(self, field: str, value: Any, allowed: tuple[str, ...]) -> None:
        words = ", ".join(f'"{a}"' for a in allowed)
        text = f'Unsupported value: "{value}": supported values: {words}'
        self._add("FieldValueNotSupported", field, text)

    def forbidden(self, field: str, detail: str) -> None:
        self._add("FieldValueForbidden", field, f"Forbidden: {detail}")

    def duplicate(self, field: str, value: str) -> None:
        self._add("FieldValueDuplicate", field, f'Duplicate value: "{value}"')

    def missing(self, field: str, value: str) -> None:
        self._add("FieldValueNotFound", field, f'Not found: "{value}"')

    def refuse(self, group: str, kind: str, name: str) -> None:
        """Raise what was collected, if anything was."""
        if not self:
            return
        texts = [f"{c['field']}: {c['message']}" for c in self]
        told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        full = f"{kind}.{group}" if group else kind
        details = {**_details(group, kind, name), "causes": list(self)}
        raise Problem(422, "Invalid", f'{full} "{name}" is invalid: {told}', details)


def _go(value: Any) -> str:
    """A value as Go prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
