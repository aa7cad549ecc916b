"""compare on real runs of tiny pipelines: what is equal, what is told of what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import ABC, HEAD, Invoke, shown

Write = Callable[[str, str], Path]


SCRIPTS = """
MAKE = r'''
o=${PORTAFLOW_OUTPUT_T#file://}
mkdir -p $o
printf "$ROWS" > $o/part-$RUN.csv
touch $o/_SUCCESS
echo "{\\"rmse\\": $VALUE}" > ${PORTAFLOW_RESULT#file://}
'''
USE = r'''
o=${PORTAFLOW_OUTPUT_U#file://}
mkdir -p $o
sort ${PORTAFLOW_INPUT_T#file://}/*.csv > $o/sorted.txt
'''
pipeline = Pipeline(name="data", params={"rows": "", "value": 0.5}, tasks=(
    sh("make", MAKE, outputs=("t",),
       env={"RUN": "{{ run_id }}", "ROWS": "{{ params.rows }}", "VALUE": "{{ params.value }}"}),
    sh("use", USE, inputs={"t": "make.t"}, outputs=("u",)),
))
"""
ROWS = r"id,score\n1,0.5\n2,1.5\n"


@pytest.fixture
def make(invoke: Invoke, place: Path) -> Callable[..., None]:
    """Run a pipeline of two tasks with the rows and the value that its first task writes."""
    (place / "data").mkdir()
    (place / "data" / "pipeline.py").write_text(f"{HEAD}\n{SCRIPTS}")

    def run(id: str, rows: str = ROWS, value: float = 0.5, *more: str) -> None:
        params = ("-p", f"rows={rows}", "-p", f"value={value}")
        invoke("run", "data", "--run-id", id, *params, *more)

    return run


Make = Callable[..., None]


def test_runs_with_the_same_rows_are_equal_and_others_name_the_first_task(
    invoke: Invoke, make: Make
) -> None:
    make("a")
    make("b", r"id,score\n2,1.5\n1,0.5\n")
    make("c", r"id,score\n1,0.5\n2,1.6\n")
    assert "equal: 2 tasks" in invoke("compare", "a", "b").stdout
    out = invoke("compare", "a", "c", code=1).stdout
    assert "different: the first task that differs is 'make': t: 2 rows in both" in out
    assert "only in A: id='2', score='1.5'" in out
    assert "only in B: id='2', score='1.6'" in out
    body = shown(invoke, "compare", "a", "b")
    assert (body["equal"], body["first"]) == (True, None)
    assert body["tasks"][0]["rows"] == {"t": [2, 2]}
    body = json.loads(invoke("compare", "a", "c", "--json", code=1).stdout)
    assert (body["equal"], body["first"]) == (False, "make")
    assert [d["what"] for t in body["tasks"] for d in t["differences"]] == ["rows", "bytes"]


def test_a_difference_of_columns_of_rows_and_of_values_is_told(invoke: Invoke, make: Make) -> None:
    make("a")
    make("renamed", r"id,rating\n1,0.5\n2,1.5\n")
    make("shorter", r"id,score\n1,0.5\n")
    make("valued", ROWS, 0.6)
    assert "only A has column 'score'" in invoke("compare", "a", "renamed", code=1).stdout
    assert "2 rows in A, 1 in B" in invoke("compare", "a", "shorter", code=1).stdout
    assert "rmse is 0.5 in A, 0.6 in B" in invoke("compare", "a", "valued", code=1).stdout


def test_a_declared_tolerance_is_for_floats_of_rows_and_values(invoke: Invoke, make: Make) -> None:
    make("a")
    make("b", r"id,score\n2,1.5000000000001\n1,0.5\n", 0.50000000000001)
    first = json.loads(invoke("compare", "a", "b", "--json", code=1).stdout)
    assert first["first"] == "make"
    body = json.loads(invoke("compare", "a", "b", "--tolerance", "1e-9", "--json", code=1).stdout)
    assert body["first"] == "use"  # a text file knows no floats
    assert invoke("compare", "a", "b", "--tolerance", "2", code=2)


def test_runs_of_two_targets_can_be_compared(invoke: Invoke, make: Make, place: Path) -> None:
    with (place / "portaflow.toml").open("a") as file:
        file.write('[targets.other]\nextends = "local"\nstore.root = "store2"\n')
        file.write('container.root = "processes2"\n')
    make("a")
    make("a", ROWS, 0.5, "-t", "other")
    make("c", r"id,score\n", 0.5, "-t", "other")
    assert "equal" in invoke("compare", "a", "a", "--target-b", "other").stdout
    assert (
        "2 rows in A, 0 in B" in invoke("compare", "a", "c", "--target-b", "other", code=1).stdout
    )


def test_what_cannot_be_compared_is_no_difference(invoke: Invoke, make: Make, place: Path) -> None:
    make("a")
    assert "there is no run 'nope'" in invoke("compare", "a", "nope", code=2).stderr
    assert invoke("compare", "a", code=2)
    make("broken", r'id,score\n"1')
    make("other", r"id,score\n3,3\n")
    shutil.rmtree(place / ".portaflow/store/data/other/make/t")
    assert "is not there" in invoke("compare", "a", "other", code=2).stderr


def test_a_task_that_is_not_committed_is_not_equal(invoke: Invoke, write: Write) -> None:
    write("p", ABC)
    for run in ("r1", "r2"):
        invoke("run", "p", "--run-id", run, code=1)
    out = invoke("compare", "r1", "r2", code=1).stdout
    assert "run 'r1' has not committed it; run 'r2' has not committed it" in out
    assert "the first task that differs is 'b'" in out
