"""Label and field selectors, as the API server reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .problems import Json, bad_request
from .resources import EVENTS, JOBS, NAMESPACES, NODES, PODS, SECRETS, Resource

Matcher = Callable[[Json], bool]


def everything(obj: Json) -> bool:
    return True


def matcher(resource: Resource, labels: str, fields: str) -> Matcher:
    """Compile both selectors of a request."""
    first, second = label_matcher(labels), field_matcher(resource, fields)
    if first is not None and second is not None:
        one, other = first, second
        return lambda o: one(o) and other(o)
    return first or second or everything


_TERM = re.compile(r"(?:[^,(]|\([^)]*\))+")
_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)")
_KEY = re.compile(r"(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")

_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    PODS.plural: (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    JOBS.plural: ("status.successful",),
    EVENTS.plural: (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    ),
    SECRETS.plural: ("type",),
    NAMESPACES.plural: ("status.phase",),
    NODES.plural: ("spec.unschedulable",),
}  # fmt: skip


def label_matcher(selector: str) -> Matcher | None:
    """Compile a label selector; None when it selects everything."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    for term in _TERM.findall(selector):
        if stripped := term.strip():
            tests.append(_label_test(stripped, selector))
    if not tests:
        return None
    return lambda o: all(test(o["metadata"].get("labels") or {}) for test in tests)


def _label_test(term: str, selector: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.fullmatch(term):
        key, operator = _key(match[1], selector), match[2]
        values = {v.strip() for v in match[3].split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if "!=" in term:
        key, _, value = term.partition("!=")
        key, wanted = _key(key, selector), value.strip()
        return lambda labels: labels.get(key) != wanted
    if "=" in term:
        key, _, value = term.replace("==", "=").partition("=")
        key, wanted = _key(key, selector), value.strip()
        return lambda labels: labels.get(key) == wanted
    if term.startswith("!"):
        key = _key(term[1:], selector)
        return lambda labels: key not in labels
    key = _key(term, selector)
    return lambda labels: key in labels


def _key(text: str, selector: str) -> str:
    key = text.strip()
    if not _KEY.fullmatch(key):
        raise bad_request(
            f"unable to parse requirement: found '{key}' in \"{selector}\", expected: a label key"
        )
    return key


def field_matcher(resource: Resource, selector: str) -> Matcher | None:
    """Compile a field selector; None when it selects everything."""
    known = (*_COMMON_FIELDS, *_FIELDS.get(resource.plural, ()))
    tests: list[tuple[tuple[str, ...], str, bool]] = []
    for term in filter(None, (t.strip() for t in selector.split(","))):
        match = re.fullmatch(r"([^!=]+)(!=|==|=)(.*)", term)
        if not match:
            raise bad_request(f"invalid selector: '{selector}'; can't understand '{term}'")
        path, operator, value = match.groups()
        if path not in known:
            raise bad_request(f'field label not supported: "{path}"')
        tests.append((tuple(path.split(".")), value, operator != "!="))
    if not tests:
        return None
    return lambda o: all((_at(o, path) == value) is equal for path, value, equal in tests)


def _at(value: object, path: tuple[str, ...]) -> str:
    if path == ("status", "successful"):
        path = ("status", "succeeded")
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
