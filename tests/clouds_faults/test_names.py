"""Names that are long, in any language, or hostile: what is made of them is legal on each
provider by its own rules, one for each thing, and found again.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portaflow.errors import DefinitionError
from portaflow.load import load
from portaflow.pipeline import Pipeline
from portaflow.plan import Action, Plan, Run
from portaflow.session import Session
from portaflow.target import load_target

from .field import PATIENCE, TARGETS, Field, written

HOSTILE = (
    "x" * 200,
    "x" * 199 + "y",
    "🦄" * 200,
    "שלום עולם، مرحبا بالعالم",
    "訓練 – Größe é e\u0301",
    "$(touch pwned) `id` ; rm -rf ~ && echo | > < & !",
    "'\"quotes\"' %s {0} %2e%2e%2f #?*[x]~^",
    "=cmd|' calc'!A1",
    "A", "a", "a b", "a-b", "a_b", "CON", "NUL", "null", "0", "-".join("ab" * 50),
)  # fmt: skip
FORBIDDEN = ("../up", "a/b", "a\\b", "..", ".a", "-a", "_a", "a\nb", "a\tb", "a\0b", "", "x" * 201)

_LABEL = r"[a-z0-9_-]{0,63}"
_TEXT = r"[\u0020-\uD7FF\uE000-\uFFFD\r\n\t]{1,256}"
_DNS = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_KEY = re.compile(r"(s3|gs)://[a-z0-9.-]+/[A-Za-z0-9._=/-]+")


def plans(
    folder: Path, name: str, task: str, run: str, output: str = "out"
) -> Iterator[tuple[str, Plan]]:
    """The plan of one pipeline on each target."""
    for target in TARGETS:
        body = written(target, name=name, task={"id": task, "outputs": [output]})
        for cluster in body.get("clusters", ()):
            cluster["name"] = body["tasks"][0]["cluster"] = task
        file = folder / "named.yaml"
        file.write_text(json.dumps(body, ensure_ascii=False), "utf-8")
        session = Session(load_target(target, file=folder / "portaflow.toml"))
        yield target, session.plan(load(file), Run(id=run))


def check(target: str, action: Action) -> None:
    """That a request keeps to the provider's own rules of names."""
    request: Any = action.request
    match target, action.kind:
        case "emr", "cluster":
            fits(_TEXT, request["Name"])
            for tag in request["Tags"]:
                fits(r".{1,128}", tag["Key"])
                fits(r"[\w \-.:/=+@]{0,256}", tag["Value"])
        case "emr", "job":
            (step,) = request["Steps"]
            fits(_TEXT, step["Name"])
            assert sum(map(len, step["HadoopJarStep"]["Args"])) < 10_280
        case "serverless", "job":
            fits(r"[A-Za-z0-9._/#-]{1,256}", request["name"])
            fits(r"[A-Za-z0-9-._]{1,64}", request["clientToken"])
            for value in request["tags"].values():
                fits(r"[A-Za-z0-9 /_.:=+@-]{0,256}", value)
        case "dataproc", "cluster":
            fits(r"[a-z]([-a-z0-9]{0,49}[a-z0-9])?", request["cluster"]["cluster_name"])
            labels(request["cluster"]["labels"])
            fits(r"[A-Za-z0-9_-]{1,40}", request["request_id"])
        case "dataproc", "job":
            fits(r"[a-zA-Z0-9_-]{1,100}", request["job"]["reference"]["job_id"])
            labels(request["job"]["labels"])
        case "batches", "job":
            fits(r"[a-z0-9-]{4,63}", request["batch_id"])
            labels(request["batch"]["labels"])
        case _, "container":
            fits(_DNS, request["metadata"]["name"])
            for value in request["metadata"]["labels"].values():
                fits(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?", value)
            (box,) = request["spec"]["template"]["spec"]["containers"]
            for variable in box["env"]:
                fits(r"[A-Za-z_][A-Za-z0-9_]*", variable["name"])


def fits(pattern: str, text: str) -> None:
    assert re.fullmatch(pattern, text), text


def labels(given: dict[str, str]) -> None:
    for key, value in given.items():
        fits(r"[a-z][a-z0-9_-]{0,62}", key)
        fits(_LABEL, value)


def legal(folder: Path, name: str, task: str, run: str, output: str = "out") -> dict[str, set[str]]:
    """Check all that would be made; return what tells one thing from another, by target."""
    told: dict[str, set[str]] = {}
    for target, plan in plans(folder, name, task, run, output):
        for action in plan.actions:
            if action.verb == "start":
                check(target, action)
            for uri in (plan.home, *action.outputs.values()):
                assert _KEY.fullmatch(uri), uri
                assert not {"", ".", ".."} & set(uri.partition("://")[2].split("/"))
                assert len(uri) < 900  # a store takes keys of 1,024 bytes, and files follow
        started = [a for a in plan.actions if a.verb == "start"]
        told[target] = {a.name for a in started} | {plan.owner, plan.home}
        told[target] |= {uri for a in started for uri in a.outputs.values()}
        assert len({a.name for a in started}) == len(started)
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("names")
    text = "".join(f"[targets.{name}]\n{lines}\n" for name, lines in TARGETS.items())
    (made / "portaflow.toml").write_text(text)
    (made / "job.py").write_text("print('this is Spark')\n")
    return made


def test_hostile_names_are_legal_everywhere_and_no_two_meet(folder: Path) -> None:
    seen: dict[str, set[str]] = {target: set() for target in TARGETS}
    for name in HOSTILE:
        several = [("p", "t", name), (name, name, name)]
        for pipeline, task, run in several:
            if run.startswith("-"):
                continue
            for target, told in legal(folder, pipeline, task, run, output=name).items():
                one = {w for w in told if w.startswith("pf-") and not w.endswith("-1")}
                fresh = {w for w in told if w.endswith("-1")}  # what is started, with its attempt
                assert one
                assert not fresh & seen[target], name
                seen[target] |= fresh


_printed = st.characters(
    exclude_categories=["C", "Z"], include_characters=" ", exclude_characters="/\\."
)
_names = st.text(_printed, min_size=1, max_size=200).filter(lambda text: text[0] not in "_- ")


@settings(max_examples=25, deadline=None)
@given(_names, _names, _names.filter(lambda text: text == text.strip()))
def test_any_name_is_legal_everywhere(folder: Path, name: str, task: str, run: str) -> None:
    mine = legal(folder, name, task, run)
    other = legal(folder, name, task + "x" if len(task) < 200 else task[:-1], run)
    for target, told in mine.items():
        shared = {word for word in told & other[target] if word.endswith("-1")}
        assert not shared


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_could_leave_its_place_is_no_name(folder: Path, name: str) -> None:
    task = {"id": "t", "kind": "container", "image": "busybox"}
    for body in (
        {"name": name, "tasks": [task]},
        {"name": "p", "tasks": [{**task, "id": name}]},
        {"name": "p", "tasks": [{**task, "outputs": [name]}]},
    ):
        with pytest.raises(ValueError, match=r"name|character"):
            Pipeline.model_validate(body)
    session = Session(load_target("gke", file=folder / "portaflow.toml"))
    pipeline = folder / "plain.yaml"
    pipeline.write_text(json.dumps({"name": "p", "tasks": [task]}))
    if "/" in name or not name.isprintable() or not 1 <= len(name) <= 200 or name[0] == "-":
        with pytest.raises(DefinitionError, match="run id"):
            session.plan(load(pipeline), Run(id=name))
    else:  # a run may be called so, and its key is another
        home = session.plan(load(pipeline), Run(id=name)).home
        assert _KEY.fullmatch(home)
        assert home.rpartition("/")[2] not in ("", ".", "..")


_LONG = "$(id) ünï 🦄 " + "x" * 188
_HANGS = {
    "emr": "aws:emr.AddJobFlowSteps",
    "serverless": "aws:emr-serverless.StartJobRun",
    "dataproc": "gcp:dataproc.SubmitJob",
    "batches": "gcp:dataproc.CreateBatch",
    "kubernetes": "kubernetes:kubelet.RunPod",
}


@pytest.mark.parametrize("target", _HANGS)
def test_a_run_of_such_names_runs_and_is_found(field: Field, target: str) -> None:
    assert len(_LONG) == 200
    run = f"{target} {_LONG}"[:200]
    task: dict[str, Any] = {"id": _LONG, "timeout": 120}
    file = field.pipeline(target, task=task, name=_LONG)
    for beside in (False, True):  # what takes long has been imported then
        assert field.portaflow("--version", beside=beside).code == 0
    field.fault("hang", _HANGS[target])
    words = ("run", file, "--target", target, "--run-id", run, "--json")
    ended: list[Any] = []
    running = threading.Thread(target=lambda: ended.append(field.portaflow(*words)))
    running.start()
    deadline = time.monotonic() + PATIENCE
    kind = "container" if target == "kubernetes" else "job"
    while True:  # it is found while it is at work, by whoever looks
        reap = field.portaflow("reap", "--target", target, "--json", beside=True)
        found = [f for f in json.loads(reap.out)["found"] if f["kind"] == kind]
        if found and found[0].get("run"):
            break
        assert time.monotonic() < deadline, reap.text
    assert [(f["pipeline"], f["run"], f["engine"]) for f in found] == [(_LONG, run, "alive")]
    assert found[0]["name"] in field.audit(target)["owned"]
    stopped = field.portaflow("stop", run, "--target", target, beside=True)
    assert stopped.code == 0, stopped.text
    running.join()
    assert ended[0].task["state"] == "stopped"
    status = field.portaflow("status", run, "--target", target, "--json")
    assert status.code == 0, status.text
    assert [t["task"] for t in json.loads(status.out)["tasks"]] == [_LONG]
    again = field.portaflow("resume", run, "--target", target, "--json")  # now nothing hangs
    assert again.code == 0, again.text
    assert again.task["task"] == _LONG
    field.nothing_left(target)
