"""Jinja templates with Airflow's names, sandboxed, and strict about what is undefined.

Names: `ds`, `ds_nodash`, `ts`, `ts_nodash`, `logical_date`, `data_interval_start`,
`data_interval_end`, `run_id`, `params`, and in tasks `task_id`, `inputs`, `outputs`, `result`.

A template is expressions and `{% if %}`. Loops, macros and variables belong in Python: with
them a line of text can keep a machine busy for ever, and no plan is worth that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import StrictUndefined, Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from .errors import DefinitionError
from .pipeline import suggest

Render = Callable[[str, str], str]
"""render(field, text): the text with its templates replaced; an error names the field."""

_LONGEST = 10_000  # characters or items of a value inside a template, and of a template
_LARGEST = 1_000_000  # characters of what a template renders to

_STATEMENTS = (nodes.Output, nodes.If)
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "format", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "round", "select", "selectattr", "sort", "string", "sum",
    "title", "tojson", "trim", "unique", "upper", "urlencode",
)  # fmt: skip
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "to_bytes"}
_WIDTH = re.compile(r"%\(|%[^a-zA-Z%]*(\d{4}|\*)")  # of a printf format
_SIZED = {"do_round", "do_tojson"}  # filters whose numbers say how much to make


class _Undefined(StrictUndefined):
    """Strict also inside of a list, which would else show it as "Undefined"."""

    __slots__ = ()
    __repr__ = StrictUndefined.__str__


class _Method(_Undefined):
    """A method is there to be called. As a value it is undefined, like what is not there."""

    __slots__ = ("method",)
    method: Callable[..., Any]


def _value(found: Any, obj: Any, name: Any) -> Any:
    """What was found in an object, if it is a value; else what raises when it is used."""
    hint = suggest(str(name), map(str, obj)) if isinstance(obj, Mapping) else ""
    if isinstance(found, _Undefined):
        return _Undefined(f"there is no {name!r} in it{hint}") if hint else found
    if not callable(found):
        return found
    made = _Method(f"there is no {name!r} in it, only the method {name}(){hint}")
    made.method = found
    return made


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses whatever makes much of little, so that each step is small.

    No value is longer than _LONGEST, so that the largest that a step can make before it is
    refused is the square of it.
    """

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(undefined=_Undefined, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: _bounded(self.filters[name]) for name in _FILTERS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What is in a mapping comes before its methods: an output may be called "items"."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return _value(super().getattr(obj, attribute), obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _value(super().getitem(obj, argument), obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("'%' does not format text here; use the filter `format`")
        if operator == "*" and not (_number(left) and _number(right)):
            raise SecurityError("'*' multiplies numbers only")
        if operator == "**" and not (
            _number(left) and _number(right) and abs(left) <= 2**64 and abs(right) <= 64
        ):
            raise SecurityError("the result of '**' would be too large")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _PADDING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own safe `format` knows no limit of a width: there is none here."""

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        function = function.method if isinstance(function, _Method) else function
        _check(getattr(function, "__self__", None), *args, *kwargs.values())
        result = super().call(context, function, *args, **kwargs)
        _check(result)
        return result


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _check(*values: Any) -> None:
    for value in values:
        if isinstance(value, str | bytes | list | tuple | dict) and len(value) > _LONGEST:
            raise SecurityError(f"a value has more than {_LONGEST} characters or items")


def _bounded(filter: Callable[..., Any]) -> Callable[..., Any]:
    """The filter for small values, with a small result."""

    @wraps(filter)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check(*args, *kwargs.values())
        if filter.__name__ == "do_format" and _WIDTH.search(str(args[0])):
            raise SecurityError("a width in `format` has at most three digits and no name")
        given = args[1 + hasattr(filter, "jinja_pass_arg") :]  # after Jinja's own and the value
        if filter.__name__ in _SIZED and any(
            _number(v) and abs(v) > 100 for v in (*given, *kwargs.values())
        ):
            raise SecurityError("at most 100 digits or spaces")
        result = filter(*args, **kwargs)
        _check(result)
        return result

    return bounded


_ENVIRONMENT = _Sandbox()


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Template:
    if len(source) > _LONGEST:
        raise SecurityError(f"a template has at most {_LONGEST} characters")
    tree = _ENVIRONMENT.parse(source)
    for statement in tree.find_all(nodes.Stmt):
        if not isinstance(statement, _STATEMENTS):
            kind = type(statement).__name__.lower()
            raise SecurityError(f"line {statement.lineno}: {kind} is not allowed, only if")
    return _ENVIRONMENT.from_string(tree)


def run_context(run_id: str, logical_date: datetime, params: Mapping[str, Any]) -> dict[str, Any]:
    """The names that are the same for all tasks of a run."""
    stamp = logical_date.isoformat()
    return {
        "ds": f"{logical_date:%Y-%m-%d}",
        "ds_nodash": f"{logical_date:%Y%m%d}",
        "ts": stamp,
        "ts_nodash": f"{logical_date:%Y%m%dT%H%M%S}",
        "logical_date": logical_date,
        "data_interval_start": logical_date,
        "data_interval_end": logical_date,
        "run_id": run_id,
        "params": dict(params),
    }


def renderer(context: Mapping[str, Any], where: str) -> Render:
    """Return render(field, text); an error names `where`, the field and the template."""

    def render(field: str, text: str) -> str:
        if "{" not in text or not any(mark in text for mark in ("{{", "{%", "{#")):
            return text
        try:
            value = _joined(_compiled(text).generate(context))
        except Exception as error:  # an expression can do whatever its values can
            shown = text if len(text) <= 80 else text[:77] + "..."
            names = ", ".join(sorted(context))
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DefinitionError(
                f"{where}: {field}: template {shown!r}: {cause[:500]}; names known here: {names}"
            ) from error
        return value

    return render


def _joined(pieces: Any) -> str:
    total, parts = 0, []
    for piece in pieces:
        total += len(piece)
        if total > _LARGEST:
            raise SecurityError(f"renders to over {_LARGEST} characters")
        parts.append(piece)
    return "".join(parts)


def render_json(render: Render, field: str, value: JsonValue) -> JsonValue:
    """Render every text in a value, however deep; keys stay as they are."""
    match value:
        case str():
            return render(field, value)
        case list():
            return [render_json(render, f"{field}[{i}]", v) for i, v in enumerate(value)]
        case dict():
            return {k: render_json(render, f"{field}.{k}", v) for k, v in value.items()}
        case _:
            return value
