"""Reads a pipeline from a folder or a file: pipeline.py, or pipeline.yaml."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .errors import DefinitionError, Gathered, PortaflowError, SeveralErrors, each
from .pipeline import CallTask, Cluster, ContainerTask, Pipeline, Source, SparkTask
from .validation import explain

_NAMES = ("pipeline.py", "pipeline.yaml", "pipeline.yml")
_LARGEST = 4 * 2**20  # bytes; half a minute of YAML
_DEEPEST = 100  # brackets in brackets
_SHOWN = 300  # characters of somebody else's error


@dataclass(frozen=True)
class Project:
    """A pipeline and the folder that its relative paths start from."""

    pipeline: Pipeline
    folder: Path
    file: Path


def load(path: Path) -> Project:
    """Read the pipeline at `path`, a file or a folder with one of the known names.

    Raises DefinitionError that names the file and the field.
    """
    file = _file(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise DefinitionError(f"{file}: larger than {_LARGEST} bytes; is it the right file?")
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{file}: cannot be read: {error}") from error
    try:
        with naming(file):
            pipeline = _from_python(file, text) if file.suffix == ".py" else _from_yaml(file, text)
    except ValidationError as error:
        where = f"{file}{_line(error, file)}"
        raise DefinitionError(explain(error, where, _keys())) from error
    except RecursionError as error:
        raise DefinitionError(f"{file}: is nested too deeply") from error
    return Project(pipeline, file.parent.absolute(), file.absolute())


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Put the file, and the line if it is Python, before what is found wrong with a pipeline."""
    try:
        yield
    except (DefinitionError, SeveralErrors) as error:
        where, wrong = f"{file}{_line(error, file)}", Gathered()
        for one in each(error):
            named = str(one).startswith(str(file)) or not isinstance(one, DefinitionError)
            wrong.add(one if named else DefinitionError(f"{where}: {one}"))
        if (told := wrong.all()) is error or told is None:
            raise
        raise told from error


def _file(path: Path) -> Path:
    try:
        if path.is_dir():
            found = [path / n for n in _NAMES if (path / n).is_file()]
            if len(found) == 1:
                return found[0]
            names = " or ".join(_NAMES[:2])
            cause = "holds both; name the file" if found else f"holds no {names}"
            raise DefinitionError(f"{path}: {cause}; portaflow new pipeline NAME makes one")
        if not path.is_file():
            raise DefinitionError(f"{path}: there is no such file or folder")
        if path.suffix not in (".py", ".yaml", ".yml"):
            raise DefinitionError(f"{path}: a pipeline is a folder, a .py or a .yaml file")
    except (OSError, ValueError) as error:  # a name too long, a NUL byte
        raise DefinitionError(f"{str(path)[:200]!r}: cannot be read: {error}") from error
    return path


def _from_python(file: Path, text: str) -> Pipeline:
    """Run the file and take its `pipeline`. Its folder can be imported from meanwhile."""
    module = types.ModuleType("portaflow_pipeline")
    module.__file__ = str(file)
    folder = str(file.parent.absolute())
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, folder)
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, str(file), "exec"), module.__dict__)  # noqa: S102  it is the user's
    except (PortaflowError, ValidationError):
        raise
    except SystemExit as error:
        raise DefinitionError(f"{file}: calls exit while it is read") from error
    except Exception as error:  # whatever the user's file does
        line = _line(error, file)
        raise DefinitionError(f"{file}{line}: {type(error).__name__}: {_said(error)}") from error
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:  # another folder may have one of that name
            origin = getattr(sys.modules[name], "__file__", None)
            if name == module.__name__ or (origin and Path(origin).is_relative_to(folder)):
                del sys.modules[name]
    found = getattr(module, "pipeline", None)
    if not isinstance(found, Pipeline):
        raise DefinitionError(f"{file}: defines no `pipeline = Pipeline(...)`")
    return found


def _said(error: BaseException) -> str:
    """What somebody else's error says: on one line, short, and printable."""
    try:
        text = " ".join(str(error).split())[:_SHOWN]
    except Exception as second:  # an error of the user's own that cannot even be said
        return f"its text is broken too: {type(second).__name__}"
    return text if text.isprintable() else repr(text)[1:-1]


def _line(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f":{error.lineno}" if error.lineno else ""
    lines = []
    step = error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename == str(file):
            lines.append(step.tb_lineno)
        step = step.tb_next
    return f":{lines[-1]}" if lines else ""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, and anchors, with which ten lines fill the memory.

    Also brackets in brackets without end: the time they take grows with their square.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > _DEEPEST:
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {_DEEPEST} levels", mark)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                text = f"the key {key.value!r} is there twice"
                raise yaml.MarkedYAMLError(None, None, text, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _from_yaml(file: Path, text: str) -> Pipeline:
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise DefinitionError(
            f"{file}: is no YAML: {_said(error) or type(error).__name__}"
        ) from error
    if not isinstance(document, dict):
        raise DefinitionError(f"{file}: must be a mapping with the keys name and tasks")
    return Pipeline.model_validate(document)


def _keys() -> set[str]:
    models = (Pipeline, SparkTask, ContainerTask, CallTask, Cluster, Source)
    return {key for model in models for key in model.model_fields}
