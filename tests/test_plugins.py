"""Finding plugins: the first on the path counts, strangers are guarded, claims are checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portaflow.backend import API_VERSION
from portaflow.errors import PluginError, PortaflowError, TargetError
from portaflow.hookspecs import BackendSpec
from portaflow.plugins import Offer, Registry, installed

HEAD = (
    "from portaflow.hookspecs import BackendSpec, hookimpl\n@hookimpl\ndef portaflow_backends():\n"
)
BACKEND = """
from dataclasses import dataclass
from portaflow.backend import ObjectStore

@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = 1

class Store(ObjectStore):
    name = "x"
    Config = Config
    def url(self, key): return key
    def filesystem(self): return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder first on the path, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    installed.cache_clear()
    yield tmp_path
    installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


Install = Callable[..., Path]


def names(registry: Registry) -> set[str]:
    return {offer.spec.name for offer in registry}


def test_settings_may_be_inherited_from_a_config_of_another_module(
    folder: Path, install: Install
) -> None:
    spec = "BackendSpec('x', 'store', 'heir_store:Store')"
    install(folder, "heir", f"{HEAD}    return [{spec}]\n")
    lazily = "from __future__ import annotations\n"
    mapping = "from collections.abc import Mapping\n"
    (folder / "heir_base.py").write_text(
        lazily + mapping + BACKEND.replace("size: int = 1", "sizes: Mapping[str, int]")
    )
    base = "from heir_base import Config as Base\n"
    own = BACKEND.replace("class Config:", "class Config(Base):")
    (folder / "heir_store.py").write_text(lazily + base + own)
    registry = installed()
    opened = registry.open("store", "x", {"sizes": {"a": 1}, "size": 2}, Path())
    assert (opened.config.sizes, opened.config.size) == ({"a": 1}, 2)
    with pytest.raises(TargetError, match="sizes"):
        registry.open("store", "x", {"sizes": {"a": "b"}}, Path())


def test_a_plugin_of_a_stranger_is_found_like_our_own(folder: Path, install: Install) -> None:
    spec = "BackendSpec('x', 'store', 'stranger_store:Store')"
    install(folder, "stranger", f"{HEAD}    return [{spec}]\n")
    (folder / "stranger_store.py").write_text(BACKEND)
    registry = installed()
    assert {"x", "folder", "process"} <= names(registry)
    assert registry.broken == ()
    assert registry.open("store", "x", {"size": 3}).config.size == 3
    with pytest.raises(TargetError, match="backend 'x': sise: unknown key; did you mean 'size'"):
        registry.open("store", "x", {"sise": 3})


def test_finding_plugins_imports_no_backend(folder: Path, install: Install) -> None:
    spec = "BackendSpec('x', 'store', 'nothing.of_that_name:X')"
    install(folder, "lazy", f"{HEAD}    return [{spec}]\n")
    registry = installed()
    assert "x" in names(registry)
    with pytest.raises(PluginError, match="'x' of lazy cannot be imported: ModuleNotFoundError"):
        registry.load("store", "x")


def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(
    folder: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("old", "new"):
        entry = f"[portaflow]\na = copy_{place}\n"
        install(folder / place, "Two.Copies", None, entry)
        module = f"{HEAD}    return [BackendSpec('{place}', 'store', 'a:B')]\n"
        (folder / place / f"copy_{place}.py").write_text(module)
        monkeypatch.syspath_prepend(str(folder / place))
    assert {"old", "new"} & names(installed()) == {"new"}


def test_a_name_that_two_distributions_claim_is_refused_for_both(
    folder: Path, install: Install
) -> None:
    for name in ("one", "two"):
        install(folder, name, f"{HEAD}    return [BackendSpec('x', 'store', 'a:B')]\n")
    with pytest.raises(PluginError, match="backend 'x' is offered by one and two; uninstall one"):
        installed().load("store", "x")


@pytest.mark.parametrize("mine", ["2.0", "0.9", "1.99", "1", "new", "", "1.0.0.0.1"])
def test_another_interface_is_refused(mine: str) -> None:
    registry = Registry([Offer(BackendSpec("x", "store", "json:loads", mine), "d")], [])
    if mine == "1":
        with pytest.raises(PluginError, match="json:loads is no ObjectStore"):
            registry.load("store", "x")
    else:
        with pytest.raises(PluginError, match=f"interface {mine}, this is {API_VERSION}"):
            registry.load("store", "x")


BACKENDS = {
    "import": "raise RuntimeError('when imported')",
    "exit": "raise SystemExit(3)",
    "class": "Store = 3",
    "missing": "",
    "init": BACKEND + "    def __init__(self, config): raise ValueError('in init')",
    "leaves": BACKEND + "    def __init__(self, config): raise SystemExit(0)",
    "abstract": BACKEND + "    filesystem = ObjectStore.filesystem",
    "config": BACKEND + "    Config = dict",
    "annotation": BACKEND.replace("size: int", "size: 'Nothing'"),
}


@pytest.mark.parametrize("fault", BACKENDS)
def test_a_backend_that_cannot_be_opened_is_told_with_its_distribution(
    folder: Path, install: Install, fault: str
) -> None:
    install(
        folder,
        f"bad-{fault}",
        f"{HEAD}    return [BackendSpec('x', 'store', 'bad_{fault}_x:Store')]",
    )
    (folder / f"bad_{fault}_x.py").write_text(BACKENDS[fault])
    with pytest.raises(PluginError) as caught:
        installed().open("store", "x", {})
    assert caught.value.exit_code == 2
    assert f"bad-{fault}" in str(caught.value) or fault == "class"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("3", "TypeError"), ("[3]", "which is no BackendSpec"), ("'x'", "which is no BackendSpec"),
        ("[BackendSpec('x', 'shop', 'a:B')]", "which cannot be used"),
        ("[BackendSpec('', 'store', 'a:B')]", "which cannot be used"),
        ("[BackendSpec('x', 'store', 'a')]", "which cannot be used"),
        ("[BackendSpec('x', 'store', 'a:B', 2)]", "which is no BackendSpec"),
        ("[BackendSpec(None, 'store', 'a:B')]", "which is no BackendSpec"),
        ("None", "it announces no backend"), ("[]", "it announces no backend"),
        ("1 / 0", "ZeroDivisionError"), ("exit(1)", "SystemExit"),
    ],
)  # fmt: skip
def test_a_hook_that_answers_nonsense_is_reported(
    folder: Path, install: Install, answer: str, told: str
) -> None:
    install(folder, "nonsense", f"{HEAD}    return {answer}\n")
    registry = installed()
    (broken,) = registry.broken
    assert (broken.plugin, broken.distribution) == ("nonsense", "nonsense")
    assert told in broken.error
    assert "Traceback" in broken.traceback
    assert "folder" in names(registry)


@pytest.mark.parametrize("entries", ["[portaflow]\nnonsense\n", "[portaflow]\nx = !!!\n"])
def test_a_distribution_that_cannot_be_read_is_reported(
    folder: Path, install: Install, entries: str
) -> None:
    """pip would refuse it. (pydantic reads all distributions too, when it is imported.)"""
    install(folder, "unreadable", "", entries)
    registry = installed()
    assert [b.distribution for b in registry.broken] == ["unreadable"]
    assert "folder" in names(registry)


def test_what_is_broken_is_a_hint_for_who_asks_for_it(folder: Path, install: Install) -> None:
    install(folder, "cloud", "import nothing_of_that_name\n")
    hint = r"no store backend 'tape'.*plugin 'cloud' is broken: Mod"
    with pytest.raises(TargetError, match=hint):
        installed().load("store", "tape")


def test_interrupting_is_the_users_right(folder: Path, install: Install) -> None:
    install(folder, "slow", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        installed()


@pytest.mark.parametrize("settings", [{"root": 3}, {"root": None}, {"cache": []}])
def test_settings_are_checked_against_the_backend(settings: dict[str, Any]) -> None:
    with pytest.raises(PortaflowError, match=f"here: {next(iter(settings))}: "):
        installed().open("container", "process", settings, where="here")
