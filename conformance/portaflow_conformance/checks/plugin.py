"""L0: what can be known of a backend without starting anything or asking anybody."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from portaflow import ContainerTask, Pipeline, SparkTask
from portaflow.backend import (
    API_VERSION,
    Capability,
    ClusterSpec,
    ContainerSpec,
    Driver,
    JobSpec,
    Kind,
    Size,
    Spec,
    Support,
    Verdict,
)
from portaflow.errors import RejectedError, TargetError, UnsupportedError
from portaflow.names import resource_name
from portaflow.plan import Local, LocalFile, Run
from portaflow.planner import plan

from ..subject import Role, Subject, expect
from ..watching import outside

_SDKS = (
    "aiobotocore", "azure", "boto3", "botocore", "docker", "gcsfs", "google.api_core",
    "google.auth", "google.cloud", "kubernetes", "obstore", "pyspark", "s3fs",
)  # fmt: skip

_CAPABILITIES: Mapping[Role, frozenset[Capability]] = {
    "compute": frozenset(
        {
            Capability.JAR, Capability.PACKAGES, Capability.AUTOSCALE, Capability.SPOT,
            Capability.CONCURRENT_JOBS,
        }
    ),
    "container": frozenset(
        {Capability.IMAGES, Capability.LIMITS, Capability.GPU, Capability.SECRETS}
    ),
    "store": frozenset(
        {
            Capability.CREATE_IF_ABSENT, Capability.KEY_AND_PREFIX, Capability.CASE_SENSITIVE,
            Capability.METADATA, Capability.PRESIGN, Capability.VERSIONS,
        }
    ),
}  # fmt: skip

_SECRET = re.compile(r"secret|password|passwd|token|credential|private|api_?key", re.I)
_MARKER = "hunter2-must-not-be-seen"


def import_without_cloud_sdk(subject: Subject, role: Role) -> None:
    """Importing the backend imports no SDK: `portaflow --help` must not pay for it."""
    module = _factory(subject, role).partition(":")[0]
    script = (
        f"import sys, importlib; importlib.import_module({module!r});"
        f"print([m for m in {_SDKS!r} if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expect(child.returncode == 0, f"{module} cannot be imported by itself: {child.stderr[-500:]}")
    found = child.stdout.strip()
    expect(found == "[]", f"importing {module} imports {found}; import them where they are used")


def api_version_in_range(subject: Subject, role: Role) -> None:
    """The class says which interface it was written for, and this core has it."""
    said = subject.backend(role).api_version
    match = re.fullmatch(r"(\d+)\.(\d+)", said)
    expect(match, f"api_version is {said!r}, not MAJOR.MINOR")
    assert match
    major, minor = (int(part) for part in API_VERSION.split("."))
    expect(
        int(match[1]) == major and int(match[2]) <= minor,
        f"written for interface {said}, but this core has {API_VERSION}",
    )
    announced = _offer(subject, role).api_version
    expect(announced == said, f"announced for interface {announced}, but the class says {said}")


def config_schema_valid(subject: Subject, role: Role) -> None:
    """Config is a frozen keyword-only dataclass whose types a checker understands."""
    config = type(subject.backend(role)).Config
    expect(dataclasses.is_dataclass(config), f"{config.__name__} is no dataclass")
    expect(config.__dataclass_params__.frozen, f"{config.__name__} is not frozen")
    loose = [f.name for f in dataclasses.fields(config) if not f.kw_only]
    expect(not loose, f"{config.__name__}: not keyword-only: {', '.join(loose)}")
    untyped = [f.name for f in dataclasses.fields(config) if get_type_hints(config)[f.name] is Any]
    expect(not untyped, f"{config.__name__}: any value goes for {', '.join(untyped)}")
    TypeAdapter(config).json_schema()


def unknown_config_key_rejected(subject: Subject, role: Role) -> None:
    """A misspelt setting is refused, and the right one suggested."""
    fields = [f.name for f in dataclasses.fields(type(subject.backend(role)).Config)]
    key = f"{fields[0]}x" if fields else "no_such_setting"
    try:
        _open(subject, role, {key: "1"})
    except TargetError as error:
        expect(key in str(error), f"the error does not name {key!r}: {error}")
        expect(
            not fields or repr(fields[0]) in str(error).replace(repr(key), ""),
            f"the error does not suggest {fields[:1]}: {error}",
        )
        return
    raise AssertionError(f"the unknown setting {key!r} is accepted")


def config_validation_no_network(subject: Subject, role: Role) -> None:
    """Opening a backend, or failing to, asks nobody."""
    binding = subject.binding(role)
    assert binding
    _open(subject, role, binding.config)  # what is imported lazily is imported now
    for what in ("open", "socket.", "subprocess."):
        with outside(what) as seen:
            _open(subject, role, binding.config)
        expect(not seen, f"opening the backend does {seen[:3]}; __init__ must do no I/O")


def capabilities_complete(subject: Subject, role: Role) -> None:
    """Every capability of its kind is said to be there or not, and if not, why."""
    said = subject.backend(role).capabilities
    missing = sorted(c.value for c in _CAPABILITIES[role] - set(said))
    expect(not missing, f"capabilities does not say whether it has {', '.join(missing)}")
    alien = sorted(c.value for c in set(said) - _CAPABILITIES[role])
    expect(not alien, f"{', '.join(alien)}: no capability of a {role} backend")
    silent = [c.value for c, s in said.items() if not s.supported and not (s.reason or s.issue)]
    expect(not silent, f"{', '.join(silent)}: not supported; give a reason or an issue")


def undeclared_capability_refused(subject: Subject, role: Role) -> None:
    """A plan that needs what the backend does not have is refused, or says what it gets."""
    support = subject.backend(role).capabilities
    for capability, field, pipeline in _demanding(role):
        if support.get(capability, Support(False)).supported:
            continue
        digested = LocalFile("/main.py", "main.py", "0" * 64, 1)
        local = Local({"main.py": digested, "main.jar": digested})
        try:
            made = plan(pipeline, subject.target, Run(id="conformance"), subject.here, local)
        except UnsupportedError:
            continue
        expect(
            any(note.field == field for note in made.notes),
            f"{capability.value!r} is not declared, but a plan with it is made and says nothing",
        )


def _demanding(role: Role) -> Iterator[tuple[Capability, str, Pipeline]]:
    def pipeline(task: Any, **more: Any) -> Pipeline:
        return Pipeline.model_validate({"name": "conformance", "tasks": [task], **more})

    if role == "container":
        box = ContainerTask(id="t", image="i", command=("true",))
        yield Capability.GPU, "size.gpu", pipeline({**box.model_dump(), "size": {"gpu": 1}})
        yield Capability.SECRETS, "secrets", pipeline({**box.model_dump(), "secrets": {"A": "a"}})
    if role == "compute":
        job = SparkTask(id="t", main="main.py").model_dump()
        jar = {**job, "main": "main.jar", "main_class": "Main"}
        yield Capability.JAR, "main", pipeline(jar)
        yield Capability.PACKAGES, "packages", pipeline({**job, "packages": ["a:b:1"]})
        on = {**job, "cluster": "c"}
        yield Capability.SPOT, "spot", pipeline(on, clusters=[{"name": "c", "spot": True}])
        yield (
            Capability.AUTOSCALE,
            "workers",
            pipeline(on, clusters=[{"name": "c", "workers": [1, 3]}]),
        )


def request_is_pure(subject: Subject, role: Role) -> None:
    """Equal arguments give an equal request: later, in another process, without any I/O."""
    for kind, driver, spec in _drivers(subject, role):
        request = driver.request("pf-cf-pure-1", spec, "pf-cf-parent-1")
        text = json.dumps(request)
        with outside() as seen:
            driver.request("pf-cf-pure-1", spec, "pf-cf-parent-1")
        expect(not seen, f"{kind}: request() does {seen[:3]}")
        said = subject.elsewhere(
            "request", kind=kind, name="pf-cf-pure-1", spec=spec, parent="pf-cf-parent-1"
        )
        expect(
            json.dumps(said) == text,
            f"{kind}: another process makes {json.dumps(said)}, not {text}",
        )
        time.sleep(1.01)  # a clock with whole seconds shows
        later = json.dumps(driver.request("pf-cf-pure-1", spec, "pf-cf-parent-1"))
        expect(later == text, f"{kind}: a second later the request is {later}, not {text}")


def request_carries_ttl_and_owner(subject: Subject, role: Role) -> None:
    """The name, the owner and the time-to-live go to the provider."""
    for kind, driver, spec in _drivers(subject, role):
        text = json.dumps(driver.request("pf-cf-carries-1", spec, "pf-cf-parent-1"))
        expect("pf-cf-carries-1" in text, f"{kind}: the request does not hold the name")
        expect(spec.owner in text, f"{kind}: the request does not hold the owner")
        longer = dataclasses.replace(spec, ttl=spec.ttl + 7200)
        other = json.dumps(driver.request("pf-cf-carries-1", longer, "pf-cf-parent-1"))
        expect(other != text, f"{kind}: the request is the same whatever the time-to-live")


def no_field_dropped(subject: Subject, role: Role) -> None:
    """Each field changes the request, or `fit` says why it does not."""
    support = subject.backend(role).capabilities
    for kind, driver, spec in _drivers(subject, role):
        text = json.dumps(driver.request("pf-cf-field-1", spec, "pf-cf-parent-1"))
        for field, other, capability in _CHANGES[kind]:
            if capability and not support.get(capability, Support(False)).supported:
                continue  # the plan refuses it
            changed = dataclasses.replace(spec, **{field: other})
            changed = _furnished(driver, changed)
            try:
                request = driver.request("pf-cf-field-1", changed, "pf-cf-parent-1")
            except RejectedError:
                continue
            fit = driver.fit(changed).get(field)
            told = fit is not None and fit.verdict is not Verdict.HONOURED
            expect(
                told or json.dumps(request) != text,
                f"{kind}: {field}={other!r} changes nothing in the request, and fit() is silent",
            )
            expect(not told or (fit and fit.reason), f"{kind}: fit() gives no reason for {field}")


_CHANGES: Mapping[Kind, tuple[tuple[str, Any, Capability | None], ...]] = {
    "container": (
        ("image", "another", None),
        ("command", ("sh", "-c", "exit 3"), None),
        ("args", ("another",), None),
        ("env", {"ANOTHER": "1"}, None),
        ("secrets", {"ANOTHER": "another"}, Capability.SECRETS),
        ("size", Size(cpu=1.5, memory=3.0), None),
        ("size", Size(gpu=1), Capability.GPU),
        ("grace", 77, None),
    ),
    "cluster": (
        ("workers", (2, 2), None),
        ("workers", (1, 3), Capability.AUTOSCALE),
        ("size", Size(cpu=16, memory=64), None),
        ("spot", True, Capability.SPOT),
        ("spark_version", "3.5", None),
        ("conf", {"spark.another": "1"}, None),
    ),
    "job": (
        ("main", "file:///another.py", None),
        ("args", ("another",), None),
        ("py_files", ("file:///another.zip",), None),
        ("jars", ("file:///another.jar",), None),
        ("packages", ("a:b:1",), Capability.PACKAGES),
        ("conf", {"spark.another": "1"}, None),
        ("env", {"ANOTHER": "1"}, None),
        ("secrets", {"ANOTHER": "another"}, None),
        ("size", Size(cpu=2, memory=3.0), None),
    ),
}


def names_within_provider_limits(subject: Subject, role: Role) -> None:
    """The longest names fit, and stay apart."""
    for kind, driver, spec in _drivers(subject, role):
        names = [resource_name("x" * 99, str(i), kind, "y" * 99, 12345) for i in range(2)]
        texts = []
        for name in names:
            text = json.dumps(driver.request(name, spec, "pf-cf-parent-1"))
            expect(name in text, f"{kind}: the name {name!r} is cut or changed in the request")
            texts.append(text)
        expect(texts[0] != texts[1], f"{kind}: {names[0]!r} and {names[1]!r} are made one")


def repr_and_errors_redacted(subject: Subject, role: Role) -> None:
    """No secret in a repr, in a request, or in the error of a wrong setting."""
    backend = subject.backend(role)
    config = backend.config
    hidden = {
        f.name: _MARKER
        for f in dataclasses.fields(config)
        if _SECRET.search(f.name) and isinstance(getattr(config, f.name), str)
    }
    marked = type(backend)(dataclasses.replace(config, **hidden))
    for thing in (marked, marked.config):
        expect(_MARKER not in repr(thing), f"the repr of {type(thing).__name__} shows a secret")
    for kind, driver, spec in _drivers(subject, role):
        expect(_MARKER not in repr(driver), f"the repr of the {kind} driver shows a secret")
        if "secrets" not in {f.name for f in dataclasses.fields(spec)}:
            continue
        secret = subject.secret
        asked: Any = dataclasses.replace(spec, secrets={"IT": secret.name})  # type: ignore[call-arg]
        brought = b"".join(driver.files(asked).values())
        expect(secret.value.encode() not in brought, f"{kind}: a file holds the secret's value")
        asked = _furnished(driver, asked)
        try:
            request = driver.request("pf-cf-secret-1", asked, "pf-cf-parent-1")
        except RejectedError as error:
            expect(secret.value not in str(error), f"{kind}: the error shows the secret's value")
            continue
        shown = json.dumps(request) + repr(request)
        expect(secret.value not in shown, f"{kind}: the request holds the secret's value")


# -- parts


def _offer(subject: Subject, role: Role) -> Any:
    binding = subject.binding(role)
    assert binding
    return next(o.spec for o in subject.registry if o.spec.name == binding.backend)


def _factory(subject: Subject, role: Role) -> str:
    factory: str = _offer(subject, role).factory
    importlib.import_module(factory.partition(":")[0])
    return factory


def _open(subject: Subject, role: Role, settings: Mapping[str, Any]) -> Any:
    binding = subject.binding(role)
    assert binding
    return subject.registry.open(role, binding.backend, settings, Path("/nowhere"))


def _furnished(driver: Driver[Any], spec: Spec) -> Spec:
    """A spec with the files that the driver brings, as if they were in a store."""
    if not isinstance(spec, JobSpec):
        return spec
    files = {name: f"file:///staged/{name}" for name in driver.files(spec)}
    return dataclasses.replace(spec, files=files)


def _drivers(subject: Subject, role: Role) -> Iterator[tuple[Kind, Driver[Any], Spec]]:
    """Each driver of a backend, with a spec that it must be able to say."""
    common: dict[str, Any] = {"owner": subject.owner, "ttl": 7200}
    main = subject.here.store.url("conformance/main.py")
    specs: Mapping[Kind, Spec] = {
        "container": ContainerSpec(
            **common, image=subject.options.image, command=("sh", "-c", "exit 0"),
            env={"B": "1", "A": "2"},
        ),
        "cluster": ClusterSpec(**common),
        "job": JobSpec(**common, main=main, env={"B": "1", "A": "2"}),
    }  # fmt: skip
    wanted = {"container": ("container",), "compute": ("cluster", "job"), "store": ()}[role]
    for kind in subject.kinds():
        if kind in wanted:
            yield kind, subject.here.driver(kind), specs[kind]
