"""Templates: Airflow's names, strict, and no way out of them or to fill the memory."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from portaflow.errors import DefinitionError
from portaflow.templates import render_json, renderer, run_context

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONTEXT = run_context(
    "manual-1", WHEN, {"n": 3, "rate": 0.5, "tags": ["a", "b"], "long": "x" * 20_000, "key": "v"}
) | {
    "task_id": "t",
    "inputs": {"i": "s3://b/i"},
    "outputs": {"o": "s3://b/o", "items": "s3://b/items"},
    "result": "s3://r",
}


def rendered(text: str) -> str:
    return renderer(CONTEXT, "task 't'")("args[0]", text)


def refusal(text: str) -> str:
    began = time.process_time()
    with pytest.raises(DefinitionError) as caught:
        rendered(text)
    assert time.process_time() - began < 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ ds }}", "2026-01-02"),
        ("{{ ds_nodash }}", "20260102"),
        ("{{ ts }}", "2026-01-02T03:04:05+00:00"),
        ("{{ ts_nodash }}", "20260102T030405"),
        ("{{ logical_date.year }}", "2026"),
        ("{{ data_interval_start == logical_date == data_interval_end }}", "True"),
        ("{{ logical_date.strftime('%d/%m') }}", "02/01"),
        ("{{ run_id }}-{{ task_id }}", "manual-1-t"),
        ("{{ params.n * 1000000 }}", "3000000"),
        ("{{ params['rate'] + 1 }} {{ 2 ** 10 }} {{ 7 % 4 }}", "1.5 1024 3"),
        ("{{ inputs.i }} {{ outputs['o'] }} {{ result }}", "s3://b/i s3://b/o s3://r"),
        ("{{ outputs.items }} {{ params.items() | length }}", "s3://b/items 5"),
        ("{{ params.tags | join(',') | upper }}", "A,B"),
        ("{{ '%05.1f' | format(params.n) }}", "003.0"),
        ("{{ params.tags | tojson }}", '["a", "b"]'),
        ("{% if params.n > 2 %}many{% else %}few{% endif %}", "many"),
        ("{{ nothing | default('x') }}", "x"),
        ("{% raw %}{{ ds }}{% endraw %}", "{{ ds }}"),
        ("{# a word #}x\n", "x\n"),
        ("$HOME ${X} {} { {x} }} a{b", "$HOME ${X} {} { {x} }} a{b"),
        ("", ""),
    ],
)
def test_a_template_renders(text: str, result: str) -> None:
    assert rendered(text) == result


@pytest.mark.parametrize(
    "text",
    ["{{ nothing }}", "{{ params.nothing }}", "{{ inputs.nothing }}", "{{ ds.nothing }}",
     "{{ [nothing] }}"],
)  # fmt: skip
def test_what_is_undefined_is_an_error_that_says_what_is_known(text: str) -> None:
    told = refusal(f"see {text}")
    assert told.startswith(f"task 't': args[0]: template 'see {text}': ")
    assert "nothing" in told.split("'nothing'", 1)[0] + told
    assert "names known here: data_interval_end, " in told


@pytest.mark.parametrize(
    "text",
    ["{{ inputs.items }}", "{{ inputs['items'] }}", "{% if inputs.items %}{% endif %}",
     "{{ [inputs.items] }}", "{{ inputs.items | string }}", "{{ inputs.items.x }}",
     "{{ [inputs] | map(attribute='items') | join }}"],
)  # fmt: skip
def test_a_method_is_no_value_though_it_is_called_like_an_input(text: str) -> None:
    assert "there is no 'items' in it, only the method items(); known: i;" in refusal(text)
    assert rendered("{{ inputs.items | default('x') }}{{ ds.upper is defined }}") == "xFalse"


@pytest.mark.parametrize(
    "text",
    ["{{ x", "{% if %}", "{{ 1 | nofilter }}", "{{ 1 / 0 }}", "{{ ds + 1 }}", "{{ [1][9] }}",
     "{{ 9e999 | int }}", "{% endif %}", "{{ 'a' | int(base=99) + 'b' }}"],
)  # fmt: skip
def test_a_template_that_cannot_be_is_a_named_error(text: str) -> None:
    assert refusal(text).startswith("task 't': args[0]: template ")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'].__mro__ }}",
        "{{ params.__class__.__base__.__subclasses__() }}",
        "{{ params | attr('__class__') }}",
        "{{ params.tags | map(attribute='__class__') | first }}",
        "{{ params.items.__self__ }}",
        "{{ logical_date.strftime.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ params.update({'n': 1}) }}",
        "{{ params.tags.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ lipsum() }}",
    ],
)
def test_there_is_no_way_out(text: str) -> None:
    assert "known here" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% for a in 'xx' %}{% for b in 'xx' %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set x = 'aa' %}{% set x = x ~ x %}",
        "{{ range(10 ** 9) | list }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 2 ** 100000 }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a'.zfill(10 ** 9) }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ 'a' | indent(10 ** 9) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ '%.999999999f' | format(1) }}",
        "{{ '%(a)999999999d' | format(a=1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ ['%999999999d'] | map('format', 1) | list }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ (1).to_bytes(10 ** 9) }}",
        "{{ 'ab' | slice(10 ** 9) | list }}",
        "{{ 5 | round(-10 ** 9) }}",
        "{{ 5 | round(10 ** 9, 'ceil') }}",
        "{{ [[1]] | tojson(indent=10 ** 9) }}",
        "{{ params.long | upper }}",
        "{{ params.long.replace('x', 'y') }}",
        "{{ '" + "x" * 20_000 + "' }}",
        "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
        "{{ " + "-" * 4000 + "1 }}",
        "{{ " + "params.long ~ " * 600 + "'' }}",
    ],
    ids=lambda text: text[:40],
)
def test_no_short_template_fills_the_memory_or_the_time(text: str) -> None:
    assert len(refusal(text)) < 1000


def test_a_long_value_may_be_passed_on_as_it_is() -> None:
    assert rendered("{{ params.long }}!") == "x" * 20_000 + "!"


def test_texts_are_rendered_however_deep_they_are() -> None:
    value: Any = {"a": ["{{ ds }}", {"b": "{{ params.n }}"}], "{{ key }}": 1, "n": None}
    render = renderer(CONTEXT, "task 't'")
    assert render_json(render, "kwargs.k", value) == {
        "a": ["2026-01-02", {"b": "3"}], "{{ key }}": 1, "n": None,
    }  # fmt: skip
    with pytest.raises(DefinitionError, match=r"task 't': kwargs\.k\.a\[0\]: template"):
        render_json(render, "kwargs.k", {"a": ["{{ no }}"]})
