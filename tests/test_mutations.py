"""Hundreds of ways to get a file wrong; each ends in exit 2 and a message with file and field.

The cases are not written down but made: operators (a wrong type, an unknown key, a template
that is undefined, a path that escapes, ...) times the places of a pipeline that is right,
once as YAML and once as Python; the same for portaflow.toml; and files that are no text.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from portaflow.cli import cli
from tests.broken_files import file_cases
from tests.mutations import (
    PIPELINE,
    TARGET,
    Case,
    as_python,
    as_toml,
    as_yaml,
    pipeline_cases,
    save,
    target_cases,
)

CASES = [*pipeline_cases(), *target_cases(), *file_cases()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name in ("job.py", "lib.py", "lib.jar", "call.py", "data.csv", "images/train/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "secret.py").touch()
    (folder / "outside.py").symlink_to("../secret.py")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "images.py").mkdir()
    save(folder / "portaflow.toml", as_toml(TARGET))
    return folder


def validate(folder: Path, file: str) -> tuple[int, str]:
    config = ["--config", str(folder / "portaflow.toml")]
    result = CliRunner().invoke(cli, ["validate", str(folder / file), *config])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


@pytest.mark.parametrize("form", ["yaml", "py"])
def test_the_files_that_are_mutated_are_right(folder: Path, form: str) -> None:
    text = as_yaml(PIPELINE) if form == "yaml" else as_python(PIPELINE)
    for lead in ("", "\ufeff"):
        for end in ("\n", "\r\n"):
            save(folder / f"pipeline.{form}", lead + text.replace("\n", end))
            save(folder / "portaflow.toml", lead + as_toml(TARGET).replace("\n", end))
            code, output = validate(folder, f"pipeline.{form}")
            assert code == 0, output


def test_there_are_hundreds_of_cases_and_no_two_are_the_same() -> None:
    assert len(CASES) >= 500
    assert len({c.name for c in CASES}) > 0.9 * len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name)[1:60])
def test_a_mutation_is_a_named_error_with_file_and_field(folder: Path, case: Case) -> None:
    form = "pipeline.py" if case.file == "pipeline.py" else "pipeline.yaml"
    save(folder / form, as_python(PIPELINE) if form.endswith("py") else as_yaml(PIPELINE))
    case.write(folder)
    began = time.process_time()
    code, output = validate(folder, form)
    assert time.process_time() - began < 5
    assert code == 2, output
    assert "Traceback" not in output
    assert str(folder / case.file) in output
    for text in case.told:
        assert text in output
    assert len(output) < 6000
    assert all(c.isprintable() or c == "\n" for c in output)


@pytest.mark.parametrize("seed", range(60))
def test_noise_in_a_file_is_an_error_or_harmless(folder: Path, seed: int) -> None:
    """Some bytes are changed, doubled or gone. It may be right by chance; it never breaks."""
    random_ = random.Random(seed)
    form = random_.choice(["pipeline.yaml", "portaflow.toml"])
    save(folder / "pipeline.yaml", as_yaml(PIPELINE))
    data = bytearray((folder / form).read_bytes())
    for _ in range(random_.randint(1, 5)):
        at = random_.randrange(len(data))
        match random_.randrange(4):
            case 0:
                data[at] = random_.randrange(256)
            case 1:
                del data[at : at + random_.randrange(1, 30)]
            case 2:
                data[at:at] = data[at : at + 40]
            case _:
                data[at:at] = random_.choice([b"{", b"]", b"\n", b":", b'"', b"\t", b"- ", b"&a "])
    (folder / form).write_bytes(data)
    code, output = validate(folder, "pipeline.yaml")
    assert code in (0, 2)
    assert "Traceback" not in output
    assert code == 0 or str(folder) in output
