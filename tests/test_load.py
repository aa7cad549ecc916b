"""Reading a pipeline's file: what is found wrong is told with the file and the line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from portaflow.errors import DefinitionError
from portaflow.load import load

GOOD = """from portaflow import *
pipeline = Pipeline(name='p', tasks=[ContainerTask(id='a', image='x')])
"""
YAML = "name: p\ntasks:\n- {id: a, kind: container, image: x}\n"


def refusal(path: Path) -> str:
    with pytest.raises(DefinitionError) as caught:
        load(path)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "pipeline.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_folder_stands_for_the_pipeline_in_it(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    project = load(tmp_path)
    assert (project.pipeline.name, project.folder) == ("p", tmp_path)
    assert project.file == tmp_path / "pipeline.py"


def test_a_folder_with_two_pipelines_is_ambiguous(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    written(tmp_path, YAML, "pipeline.yaml")
    assert refusal(tmp_path).startswith(f"{tmp_path}: holds both; name the file")
    assert load(tmp_path / "pipeline.yaml").pipeline == load(tmp_path / "pipeline.py").pipeline


@pytest.mark.parametrize("name", ["", "nothing", "nothing.py", "pipeline.txt", "x" * 300, "a\0b"])
def test_what_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path / name)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load(Path()).folder == tmp_path
    assert load(Path("pipeline.py")).file == tmp_path / "pipeline.py"


@pytest.mark.parametrize("lead", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "text"), [("pipeline.py", GOOD), ("pipeline.yaml", YAML)])
def test_files_of_other_systems_are_read(
    tmp_path: Path, name: str, text: str, lead: str, end: str
) -> None:
    (tmp_path / name).write_bytes((lead + text).replace("\n", end).encode())
    assert load(tmp_path).pipeline.name == "p"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("x = 1\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = (\n", 1, "SyntaxError: '(' was never closed"),
        ("\nimport nothing_of_that_name\n", 2, "ModuleNotFoundError"),
        ("from portaflow import *\n\nContainerTask(id='a')\n", 3, "image: is missing"),
        ("from portaflow import *\nt = ContainerTask(id='a', image='x', after=['b'])\n"
         "pipeline = Pipeline(name='p', tasks=[t])\n", 3, "task 'a': after names 'b'"),
        ("def f(): f()\nf()\n", 1, "RecursionError"),
    ],
)  # fmt: skip
def test_what_python_finds_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, told: str
) -> None:
    file = written(tmp_path, text)
    assert refusal(tmp_path).startswith(f"{file}:{line}: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; sys.exit(3)", "calls exit while it is read"),
        ("x = 1", "defines no `pipeline = Pipeline(...)`"),
        ("pipeline = {'name': 'p'}", "defines no `pipeline = Pipeline(...)`"),
        ("", "defines no `pipeline = Pipeline(...)`"),
    ],
)
def test_a_file_that_is_no_pipeline_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)
    assert refusal(tmp_path) == f"{file}: {told}"


def test_a_pipeline_imports_from_its_folder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two folders may each have a module of the same name."""
    before, path = set(sys.modules), list(sys.path)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        written(folder, f"NAME = '{name}'\n", "settings.py")
        written(folder, "from settings import NAME\n" + GOOD.replace("'p'", "NAME"))
        assert load(folder).pipeline.name == name
    assert sys.path == path
    assert "settings" not in set(sys.modules) - before


def test_a_fault_in_an_imported_file_is_told_with_the_line_of_the_import(tmp_path: Path) -> None:
    written(tmp_path, "x = (\n", "broken.py")
    file = written(tmp_path, "y = 1\nimport broken\n" + GOOD)
    assert refusal(tmp_path).startswith(f"{file}:2: SyntaxError")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "is no YAML"),
        ("- a\n- b\n", "must be a mapping with the keys name and tasks"),
        ("", "must be a mapping with the keys name and tasks"),
        ("name: p\nname: q\ntasks: []\n", "the key 'name' is there twice"),
        ("name: &n p\ntasks: [*n]\n", "aliases are not allowed"),
        ("name: !!python/object:os.system ls\ntasks: []\n", "could not determine a constructor"),
        ("name: p\ntasks: []\n---\nname: q\n", "expected a single document"),
        ("name: p\ntasks: " + "[" * 5000, "is no YAML: "),
        ("name: p\nparams: {x: " + "9" * 5000 + "}\n", "is no YAML: "),
        ("name: p\ntasks:\n- {id: a, kind: spark}\n", "tasks[0].main: is missing"),
        ("name: p\ntasks:\n- {id: a, kind: sparc}\n", "tasks[0]: "),
        ("name: p\ntasks:\n- {id: a, kind: call, function: f}\n", "tasks[0].function: "),
        ("nmae: p\ntasks: []\n", "nmae: unknown key; did you mean 'name'?"),
    ],
    ids=range(13),
)
def test_what_yaml_gets_wrong_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text, "pipeline.yaml")
    message = refusal(tmp_path)
    assert message.startswith(f"{file}: ")
    assert told in message
    assert len(message) < 1500


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = written(tmp_path, "", "pipeline.yaml")
    os.truncate(file, 2**34)
    assert "larger than" in refusal(file)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00n", "name: ü".encode("latin-1"), b"\x00" * 100])
def test_what_is_no_text_is_told(tmp_path: Path, data: bytes) -> None:
    for name in ("a.yaml", "a.py"):
        (tmp_path / name).write_bytes(data)
        assert refusal(tmp_path / name).startswith(str(tmp_path / name))
