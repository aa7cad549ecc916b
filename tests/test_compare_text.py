"""CSV and JSON as tables: what counts as the same rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from portaflow.errors import RunError
from portaflow.multiset import RowDifference, compare_rows
from portaflow.tables import Csv, File, Json

FS = fsspec.filesystem("file")


def text(kind: type[Any], folder: Path, *texts: str, suffix: str = "", **more: Any) -> Any:
    folder.mkdir(parents=True)
    for n, content in enumerate(texts):
        (folder / f"part-{n}{suffix}").write_text(content)
    return kind([File(FS, str(f)) for f in sorted(folder.iterdir())], **more)


# -- CSV


def csv_rows(a: Csv, b: Csv, tolerance: float = 0.0) -> bool:
    Csv.settle(a, b)
    return a.schema() == b.schema() and compare_rows(a, b, tolerance).equal


def test_csv_with_headers_is_compared_by_name_over_any_number_of_files(tmp_path: Path) -> None:
    a = text(Csv, tmp_path / "a", 'id,name\n1,"a,b"\n2,c\n', suffix=".csv")
    b = text(Csv, tmp_path / "b", "name,id\nc,2\n", 'name,id\n"a,b",1\n', suffix=".csv")
    assert csv_rows(a, b)
    c = text(Csv, tmp_path / "c", "name,id\nc,1\na,2\n", suffix=".csv")
    assert not csv_rows(a, c)


def test_csv_without_headers_loses_no_row_to_a_header(tmp_path: Path) -> None:
    a = text(Csv, tmp_path / "a", "1,x\n2,y\n", "3,z\n", suffix=".csv")
    b = text(Csv, tmp_path / "b", "3,z\n2,y\n1,x\n", suffix=".csv")
    assert csv_rows(a, b)
    assert not csv_rows(a, text(Csv, tmp_path / "c", "3,q\n2,y\n1,x\n", suffix=".csv"))
    assert not csv_rows(a, text(Csv, tmp_path / "d", "3,z\n2,y\n", suffix=".csv"))


def test_a_renamed_csv_column_is_a_difference_of_schemas(tmp_path: Path) -> None:
    a = text(Csv, tmp_path / "a", "id,score\n1,2\n", suffix=".csv")
    b = text(Csv, tmp_path / "b", "id,rating\n1,2\n", suffix=".csv")
    Csv.settle(a, b)
    assert (set(a.schema()), set(b.schema())) == ({"id", "score"}, {"id", "rating"})


def test_csv_floats_have_a_tolerance_and_text_and_integers_have_none(tmp_path: Path) -> None:
    def pair(x: str, y: str) -> tuple[Csv, Csv]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return tuple(
            text(Csv, folder / n, f"k,v\na,{v}\n", suffix=".csv", numeric=True)
            for n, v in (("a", x), ("b", y))
        )

    assert csv_rows(*pair("1.0", "1.0000000000001"), 1e-9)
    assert csv_rows(*pair("1e0", "1.00"), 1e-9)
    assert not csv_rows(*pair("1.0", "1.1"), 1e-9)
    assert not csv_rows(*pair("1000000000", "1000000001"), 1e-3)
    assert not csv_rows(*pair("nano", "nana"), 0.5)


def test_packed_files_are_read_as_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    a, b = (Csv([File(FS, str(tmp_path / n))]) for n in ("a.csv", "b.csv.gz"))
    assert csv_rows(a, b)


# -- JSON


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_json_lines_are_rows_whatever_the_order_of_lines_and_keys(
    tmp_path: Path, tolerance: float
) -> None:
    a = text(Json, tmp_path / "a", '{"a": 1, "b": [1.5, null]}\n{"a": 2}\n', suffix=".json")
    b = text(Json, tmp_path / "b", '{"a": 2}\n', '{"b": [1.50, null], "a": 1}', suffix=".json")
    assert compare_rows(a, b, tolerance).equal
    c = text(Json, tmp_path / "c", '{"a": 2}\n{"a": 1, "b": [null, 1.5]}\n', suffix=".json")
    assert not compare_rows(a, c, tolerance).equal


def test_a_json_document_is_one_row_and_a_list_is_its_elements(tmp_path: Path) -> None:
    pretty = json.dumps([{"a": 1}, {"a": 2}], indent=2)
    a = text(Json, tmp_path / "a", pretty, suffix=".json")
    b = text(Json, tmp_path / "b", '{"a": 2}\n{"a": 1}\n', suffix=".json")
    assert compare_rows(a, b) == RowDifference((2, 2))
    c = text(Json, tmp_path / "c", json.dumps({"rmse": 0.5}, indent=2), suffix=".json")
    d = text(Json, tmp_path / "d", '{"rmse": 0.5000000000001}', suffix=".json")
    assert not compare_rows(c, d).equal
    assert compare_rows(c, d, 1e-9).equal


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    a = text(Json, tmp_path / "a", '{"a": 1}\n{"a": \n', suffix=".jsonl")
    with pytest.raises(RunError, match=r"part-0\.jsonl: cannot be read"):
        compare_rows(a, a)
