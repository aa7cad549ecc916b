"""Where a setting comes from, and what is refused with file and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from portaflow.errors import PortaflowError, TargetError
from portaflow.hookspecs import BackendSpec
from portaflow.plugins import Backends, Offer, Registry
from portaflow.target import BUILT_IN, Settings, Target, find_file, load_target, settings

LAYERS = """
default_target = "big"

[targets.base]
max_parallel = 2
store = {backend = "folder", root = "base"}
container = {backend = "process", root = "base"}
images = {train = "base", other = "base"}

[targets.big]
extends = "base"
max_parallel = 3
container.root = "big"
images.train = "big"

[targets.local]
extends = "base"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "portaflow.toml"
    path.write_text(LAYERS)
    return path


def refusal(
    file: Path,
    name: str = "",
    environ: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> str:
    with pytest.raises(TargetError) as caught:
        load_target(name, file=file, environ=environ or {}, sets=sets)
    return str(caught.value)


def saying(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "portaflow.toml"
    path.write_text(text)
    return path


# -- precedence


def test_each_setting_comes_from_the_strongest_layer_that_has_it(file: Path) -> None:
    environ = {"PORTAFLOW__CONTAINER__CACHE": "env", "PORTAFLOW__STORE__ROOT": "env"}
    name, merged = settings(file=file, environ=environ, sets=["store.root=cli"])
    assert name == "big"
    assert merged.values == {
        "max_parallel": 3,
        "store": {"backend": "folder", "root": "cli"},
        "container": {"backend": "process", "root": "big", "cache": "env"},
        "images": {"train": "big", "other": "base"},
    }
    assert merged.origins == {
        "max_parallel": f"{file} [targets.big]",
        "store.backend": f"{file} [targets.base]",
        "store.root": "--set store.root",
        "container.backend": f"{file} [targets.base]",
        "container.root": f"{file} [targets.big]",
        "container.cache": "environment PORTAFLOW__CONTAINER__CACHE",
        "images.train": f"{file} [targets.big]",
        "images.other": f"{file} [targets.base]",
    }


def test_defaults_are_below_what_a_target_extends(file: Path) -> None:
    _, merged = settings("local", file=file, environ={})
    assert merged.values["container"] == {"backend": "process", "root": "base"}
    assert merged.origins["compute.backend"] == "default"


def test_the_target_is_the_commands_then_the_environments_then_the_files(file: Path) -> None:
    environ = {"PORTAFLOW_TARGET": "base"}
    assert settings("local", file=file, environ=environ)[0] == "local"
    assert settings(file=file, environ=environ)[0] == "base"
    assert settings(file=file, environ={})[0] == "big"
    assert settings(environ={})[0] == "local"


def test_without_a_file_there_is_this_machine() -> None:
    target = load_target(environ={})
    assert (target.store.backend, target.compute and target.compute.backend) == (
        "folder", "spark-local",
    )  # fmt: skip


def test_another_backend_drops_the_settings_of_the_one_before(file: Path) -> None:
    _, merged = settings(file=file, environ={}, sets=["container.backend=docker"])
    assert merged.values["container"] == {"backend": "docker"}
    assert "container.root" not in merged.origins


def test_values_of_the_command_line_are_toml_or_text(file: Path) -> None:
    sets = [
        "max_parallel=7",
        "params.a=[1, 2]",
        "params.b=hello world",
        "images.t=a:1",
        "params.c=",
    ]
    target = load_target(file=file, environ={}, sets=sets)
    assert target.max_parallel == 7
    assert target.params == {"a": [1, 2], "b": "hello world", "c": ""}
    assert target.images["t"] == "a:1"


def test_merging_changes_no_layer() -> None:
    below: dict[str, Any] = {"a": 1, "t": {"x": 1}}
    middle: dict[str, Any] = {"a": {"b": 1}}
    above: dict[str, Any] = {"a": {"c": 2}, "t": 5}
    merged = Settings()
    for n, layer in enumerate((below, middle, above)):
        merged.merge(layer, str(n))
    assert merged.values == {"a": {"b": 1, "c": 2}, "t": 5}
    assert merged.origins == {"a.b": "1", "a.c": "2", "t": "2"}
    assert (below, middle) == ({"a": 1, "t": {"x": 1}}, {"a": {"b": 1}})


def test_the_built_in_target_stays_what_it_is(file: Path) -> None:
    before = repr(BUILT_IN)
    load_target("local", environ={}, sets=["store.root=/x", "container.root=/y"])
    assert repr(BUILT_IN) == before


def test_the_nearest_file_above_counts(file: Path, tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / "portaflow.toml").mkdir()  # a folder is no file
    assert find_file(below) == file


def test_relative_paths_start_at_the_file(file: Path, tmp_path: Path) -> None:
    target = load_target("local", file=file, environ={})
    assert target.base == tmp_path
    store = Backends(target).store
    assert store.url("k") == f"file://{tmp_path}/base/k"


# -- refusals


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[targets.local]\nmax_paralel = 3", "[targets.local]: max_paralel: unknown key; did you "),
        ("[targets.local]\nmax_parallel = 'x'", "[targets.local]: max_parallel: Input should be"),
        ("[targets.local]\nmax_parallel = 0", "[targets.local]: max_parallel: "),
        ("[targets.local]\nstore = 3", "[targets.local]: store: "),
        ("[targets.local.store]\nbackend = 3", "[targets.local]: store.backend: "),
        ("[targets.local.sources]\nx = 3", "[targets.local]: sources.x: "),
        ("[targets.local.tasks]\nx = 3", "[targets.local]: tasks.x: "),
        ("[targets.local]\nextends = 3", "[targets.local]: extends: must be the name"),
        (
            "[targets.local]\nextends = 'lcal'",
            "[targets.local]: extends: there is no target 'lcal'",
        ),
        ("[targets.local]\nextends = 'local'", "[targets.local]: extends: targets extend each "),
        ("targets = 3", "targets: must be tables"),
        ("targets.a = 3", "targets.a: must be a table"),
        ("default_target = 3", "default_target: must be the name of a target"),
        ("default_target = 'nope'", "there is no target 'nope'; known: local"),
        ("target = 3", "target: unknown key; did you mean 'targets'?"),
        ("[targets.local", "cannot be read: "),
        ("a = 1\na = 2", "cannot be read: "),
        ("a = " + "9" * 5000, "cannot be read: "),
        ("[targets.local]\nparams.x = nan", "[targets.local]: params.x"),
        ("[targets.local]\nparams.x = 2020-01-01", "[targets.local]: params.x"),
        ("[targets.local]\n" + ".".join("a" * 99) + " = 1", "nested deeper than"),
    ],
    ids=range(21),
)
def test_what_a_file_gets_wrong_is_told_with_file_and_field(
    tmp_path: Path, text: str, told: str
) -> None:
    file = saying(tmp_path, text)
    message = refusal(file)
    assert message.startswith(str(file))
    assert told in message


def test_a_value_from_elsewhere_is_told_with_its_origin(file: Path) -> None:
    told = refusal(file, environ={"PORTAFLOW__MAX_PARALLEL": "lots"})
    assert told.startswith("environment PORTAFLOW__MAX_PARALLEL: max_parallel: ")
    told = refusal(file, sets=["max_parallel=lots"])
    assert told.startswith("--set max_parallel: max_parallel: ")
    assert refusal(file, sets=["nothing=1"]).startswith("--set nothing: nothing: unknown key")
    assert "path=value" in refusal(file, sets=["nothing"])
    assert "empty part" in refusal(file, sets=["a..b=1"])
    assert "empty part" in refusal(file, environ={"PORTAFLOW__": "1"})


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["store.backend=foldr"], ": store: there is no store backend 'foldr'; did you mean"),
        (["store.backend=process"], ": store: backend 'process' is a container backend, not a"),
        (["store.colour=red"], ": store: colour: unknown key"),
        (["store.root=[1]"], ": store: root: "),
        (["store.root=~nobody-of-that-name/x"], ": store: "),
    ],
)
def test_a_setting_that_the_backend_refuses_is_told_with_its_place(
    file: Path, sets: list[str], told: str
) -> None:
    target = load_target(file=file, environ={}, sets=sets)
    with pytest.raises(PortaflowError) as caught:
        _ = Backends(target).store
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"{file} [targets.big]{told}")


def test_a_binding_that_is_missing_is_told_with_what_to_add() -> None:
    target = Target.model_validate({"name": "x", "store": {"backend": "folder"}})
    with pytest.raises(TargetError, match=r"target 'x': compute: .* add \[targets\.x\.compute\]"):
        _ = Backends(target).compute


def test_opening_a_target_does_no_io(tmp_path: Path) -> None:
    target = load_target(
        environ={}, sets=[f"store.root={tmp_path}/s", f"container.root={tmp_path}/c"]
    )
    backends = Backends(target)
    _ = backends.store, backends.container, backends.compute, backends.driver("container")
    assert list(tmp_path.iterdir()) == []


def test_a_driver_is_the_same_object_every_time() -> None:
    backends = Backends(load_target(environ={}))
    assert backends.driver("container") is backends.driver("container")


def test_a_backend_that_two_plugins_offer_is_refused_for_who_selects_it() -> None:
    spec = BackendSpec("folder", "store", "portaflow_local.folder:Folder")
    other = BackendSpec("process", "container", "portaflow_local.process:Processes")
    registry = Registry([Offer(spec, "one"), Offer(spec, "two"), Offer(other, "one")], [])
    backends = Backends(load_target(environ={}), registry)
    assert backends.container.name == "process"
    with pytest.raises(PortaflowError, match="offered by one and two; uninstall one of them"):
        _ = backends.store
