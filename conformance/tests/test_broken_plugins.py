"""Every static check fails on a backend that breaks just that promise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.checks import implemented
from portaflow_conformance.manifest import MANIFEST
from portaflow_conformance.subject import Subject
from portaflow_local.folder import Folder
from portaflow_local.process import ContainerDriver, Processes
from portaflow_local.spark import LocalSpark

from portaflow.backend import (
    SUPPORTED,
    Backend,
    Capability,
    ContainerSpec,
    Fit,
    Request,
    Support,
    Verdict,
)
from portaflow.plugins import Registry

CHECKS = [c.id for c in MANIFEST if c.area == "plugin" and not c.planned]


def asking(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> type[Processes]:
    class Asking(ContainerDriver):
        def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
            request = dict(super().request(name, spec, parent))
            return {**request, **change(request)}

    return with_driver(Asking)


def fitting(fits: Mapping[str, Fit]) -> type[Processes]:
    class Fitting(ContainerDriver):
        def fit(self, spec: ContainerSpec) -> Mapping[str, Fit]:
            return fits

    return with_driver(Fitting)


def with_driver(driver: type[ContainerDriver]) -> type[Processes]:
    def containers(self: Processes) -> ContainerDriver:
        return driver(self.config.root, self.config.root / "cache")

    return type("Broken", (Processes,), {"containers": property(containers)})


def processes(**attributes: Any) -> type[Processes]:
    return type("Broken", (Processes,), attributes)


@dataclass(kw_only=True)
class Thawed:
    root: Path = Path()


class ReadsWhenMade(Processes):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        with open(os.devnull) as stream:
            stream.read()


class TakesEveryKey(Registry):
    def open(self, kind: Any, name: str, settings: Mapping[str, Any], *rest: Any) -> Backend:
        known = {k: v for k, v in settings.items() if k in ("root", "cache")}
        return super().open(kind, name, known, *rest)


HONOURED = {"size.gpu": Fit(Verdict.HONOURED)}
SECRET = "PORTAFLOW_SECRET_CONFORMANCE"

BROKEN: dict[str, tuple[type[Processes], str]] = {
    "api_version_in_range": (processes(api_version="1.9"), "written for interface 1.9"),
    "config_schema_valid": (processes(Config=Thawed), "Thawed is not frozen"),
    "config_validation_no_network": (ReadsWhenMade, "opening the backend does"),
    "capabilities_complete": (processes(capabilities={}), "does not say whether it has gpu"),
    "undeclared_capability_refused": (fitting(HONOURED), "'gpu' is not declared, but a plan"),
    "request_is_pure": (asking(lambda r: {"at": int(time.time())}), "a second later"),
    "request_carries_ttl_and_owner": (asking(lambda r: {"ttl": 1}), "whatever the time-to-live"),
    "no_field_dropped": (fitting({}), "image='another' changes nothing"),
    "names_within_provider_limits": (
        asking(lambda r: {"name": r["name"][:30]}), "is cut or changed",
    ),
    "repr_and_errors_redacted": (
        asking(lambda r: {"env": {k: os.environ.get(SECRET, "") for k in r["secrets"]}}),
        "the request holds the secret's value",
    ),
}  # fmt: skip

MADE_BY_A_TEST_OF_ITS_OWN = {"import_without_cloud_sdk", "unknown_config_key_rejected"}


def check(name: str, subject: Subject, role: str = "container") -> None:
    implemented()[f"plugin.{name}"](subject, role)


def test_there_is_a_broken_backend_for_every_check() -> None:
    assert {f"plugin.{n}" for n in {*BROKEN, *MADE_BY_A_TEST_OF_ITS_OWN}} == set(CHECKS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_on_a_backend_that_breaks_its_promise(
    name: str, make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "the value of a secret")
    broken, says = BROKEN[name]
    with pytest.raises(AssertionError, match=says):
        check(name, make(container=broken))


@pytest.mark.parametrize("role", ["store", "container", "compute"])
@pytest.mark.parametrize("id", CHECKS)
def test_a_check_passes_on_the_backends_of_this_machine(
    id: str, role: str, make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "the value of a secret")
    classes = {"store": Folder, "container": Processes, "compute": LocalSpark}
    named = {r: f"{c.__module__}:{c.__name__}" for r, c in classes.items()}
    implemented()[id](make(**named), role)


def test_importing_an_sdk_with_the_backend_is_a_finding(
    make: Callable[..., Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boto3.py").touch()
    (tmp_path / "eager_plugin.py").write_text(
        "import boto3\nfrom portaflow_local.folder import Folder\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("boto3", "eager_plugin"):  # afterwards each is what it was before
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    with pytest.raises(AssertionError, match=r"imports .'boto3'.; import them where"):
        check("import_without_cloud_sdk", make(store="eager_plugin:Folder"), "store")


def test_accepting_a_misspelt_setting_is_a_finding(make: Callable[..., Subject]) -> None:
    subject = make(container=Processes, registry=TakesEveryKey)
    with pytest.raises(AssertionError, match="the unknown setting 'rootx' is accepted"):
        check("unknown_config_key_rejected", subject)


def test_a_capability_of_another_kind_or_without_a_reason_is_a_finding(
    make: Callable[..., Subject],
) -> None:
    alien = {**Processes.capabilities, Capability.SPOT: SUPPORTED}
    with pytest.raises(AssertionError, match="spot: no capability of a container backend"):
        check("capabilities_complete", make(container=processes(capabilities=alien)))
    silent = {**Processes.capabilities, Capability.GPU: Support(False)}
    with pytest.raises(AssertionError, match="gpu: not supported; give a reason"):
        check("capabilities_complete", make(container=processes(capabilities=silent)))
