"""Jinja templates with Airflow's names, sandboxed, and strict about what is undefined.

Names: `ds`, `ds_nodash`, `ts`, `ts_nodash`, `logical_date`, `data_interval_start`,
`data_interval_end`, `run_id`, `params`, and in tasks `task_id`, `inputs`, `outputs`, `result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import DefinitionError

_LARGEST = 1_000_000  # characters, and the largest product or power


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses the two operators with which a short template fills the memory."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(v) if isinstance(v, str | list | tuple) else abs(v) for v in (left, right)]
        if (operator == "*" and sizes[0] * sizes[1] > _LARGEST) or (
            operator == "**" and (sizes[0] > 1000 or sizes[1] > 32)
        ):
            raise SecurityError(f"the result of {operator!r} would be too large")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


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


def renderer(context: Mapping[str, Any], where: str) -> Callable[[str, str], str]:
    """Return render(field, text); an error names `where`, the field and the template."""

    def render(field: str, text: str) -> str:
        if "{" not in text or not any(mark in text for mark in ("{{", "{%", "{#")):
            return text
        try:
            value = _compiled(text).render(context)
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
            shown = text if len(text) <= 80 else text[:77] + "..."
            names = ", ".join(sorted(context))
            raise DefinitionError(
                f"{where}: {field}: template {shown!r}: {error}; names known here: {names}"
            ) from error
        if len(value) > _LARGEST:
            raise DefinitionError(f"{where}: {field}: renders to over {_LARGEST} characters")
        return value

    return render
