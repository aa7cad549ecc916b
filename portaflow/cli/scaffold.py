"""Makes a pipeline from the files in portaflow/scaffold. Nothing is ever overwritten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import portaflow
from portaflow.errors import DefinitionError
from portaflow.target import FILE, find_file

_TEMPLATES = Path(portaflow.__file__).parent / "scaffold"
_DEFINITIONS = ("pipeline.py", "pipeline.yaml")


def make(name: str, folder: Path, yaml: bool) -> list[Path]:
    """Make folder/name, and a portaflow.toml in `folder` if there is none above. Return both.

    Raises DefinitionError when the name is no name for a folder, or is taken.
    """
    if len(name) > 100 or not re.fullmatch(r"\w[\w-]*", name) or name.startswith("_"):
        raise DefinitionError(
            f"name {name[:100]!r}: use 1 to 100 letters, digits, '_' and '-', a letter or digit "
            "first; the folder of that name is made here"
        )
    home, made = folder / name, []
    try:
        home.mkdir()
        made.append(home)
        definition = _DEFINITIONS[yaml]
        for path, text in _files(definition):
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            text = text.replace("@NAME@", name).replace("@DEFINITION@", definition)
            (home / path).write_text(text, "utf-8")
        if find_file(folder) is None:
            with (folder / FILE).open("x", encoding="utf-8") as file:
                file.write((_TEMPLATES / FILE).read_text("utf-8"))
            made.append(folder / FILE)
    except FileExistsError as error:
        raise DefinitionError(
            f"{error.filename} exists already; choose another name, or remove it first"
        ) from error
    except OSError as error:
        raise DefinitionError(f"{home}: cannot be written: {error.strerror or error}") from error
    return made


def _files(definition: str) -> Iterator[tuple[Path, str]]:
    root = _TEMPLATES / "pipeline"
    for file in sorted(root.rglob("*")):
        other = file.name in _DEFINITIONS and file.name != definition
        if file.is_file() and not other and "__pycache__" not in file.parts:
            yield file.relative_to(root), file.read_text("utf-8")
