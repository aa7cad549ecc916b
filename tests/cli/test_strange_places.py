"""Whatever a folder or a run is called, everything that portaflow does there works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

Write = Callable[[str, str], Path]

TWO = """tasks=(
    sh("a", "o=${PORTAFLOW_OUTPUT_O#file://}; mkdir -p \\"$o\\"; echo 1 > \\"$o/x.csv\\"",
       outputs=("o",)),
    sh("b", "test -e ../../../../fixed || { echo not yet; exit 3; }", after=("a",)),
)"""


@pytest.mark.parametrize("name", ["a [x] b", "50% #1?", "*", "ü 好", 'it\'s "q"', "{a,b}", "~"])
def test_a_run_fails_goes_on_and_is_found_below_a_folder_of_any_name(
    invoke: Invoke, write: Write, place: Path, name: str
) -> None:
    write("p", TWO)
    (folder := place / name).mkdir()
    there = ("--set", f"store.root={folder / 'store'}", "--set", f"container.root={folder / 'at'}")
    invoke("run", "p", "--run-id", "r [1]*?", *there, code=1)
    (folder / "fixed").touch()
    done = json.loads(invoke("resume", "r [1]*?", "--json", *there).stdout)
    assert [task["attempt"] for task in done["tasks"]] == [1, 2]  # what had committed stayed
    assert Path(done["report"].removeprefix("file://")).exists()
    listed = json.loads(invoke("status", "--json", *there).stdout)["runs"]
    assert [(r["run"], r["state"]) for r in listed] == [("r [1]*?", "succeeded")]
    assert invoke("logs", "r [1]*?", "b", "--attempt", "1", *there).stdout == "not yet\n"
    invoke("run", "p", "--run-id", "r2", *there)
    invoke("compare", "r [1]*?", "r2", *there)
    invoke("reap", *there)
