"""A local cloud, engines on it that can be killed, and what the cloud knows of what they did."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from portaflow_conformance.emulators import spark
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Call
from portaflow_conformance.emulators.kubernetes.access import User

HERE = Path(__file__).parent
BUCKET = "portaflow"
What = Literal["programs", "jobs", "demo"]
PATIENCE = 900.0  # seconds for an engine: the machine may be busy
DEMO = HERE.parents[1] / "dags" / "recommendations"
CLOUDS = {
    "aws": ("aws", "kubernetes"),
    "gcp": ("gcp", "kubernetes"),
    "kubernetes": ("aws", "kubernetes"),  # for a store
}
SCHEMES = {"aws": "s3", "gcp": "gs", "kubernetes": "s3"}
_STORES = {"s3": "s3", "gs": "gcs"}
_TARGETS = {
    "aws": """\
compute = {backend = "emr", log_uri = "s3://portaflow/logs"}
container = {backend = "eks", cluster = "portaflow"}
""",
    "gcp": """\
compute = {backend = "dataproc", region = "europe-west1"}
container = {backend = "gke", cluster = "portaflow", location = "us-central1"}
""",
    "kubernetes": """\
compute = {backend = "spark-kubernetes", executors = 1}
container = {backend = "kubernetes"}
""",
}


@dataclass
class Case:
    """One run, and who its engines are: calls tell them from jobs, and from other runs."""

    name: str
    folder: Path
    uri: str
    env: dict[str, str]
    key: str  # of AWS
    started: list[Engine] = field(default_factory=list)

    def principal(self, operation: str) -> str:
        """The pattern of who calls."""
        return self.key if operation.startswith("aws:") else f"*{self.name}*"

    def made(self, call: Call) -> bool:
        return fnmatchcase(call.principal, self.principal(call.operation))

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def told(self) -> str:
        """The end of what its engines have said."""
        return self.log.read_text("utf-8", "replace")[-1500:] if self.log.exists() else ""


class Engine:
    """A process of `portaflow run` or `resume`."""

    def __init__(self) -> None:
        self.pid = 0
        self._code: int | None = None
        self._over = threading.Event()

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._over.wait(30)

    def ended(self, code: int) -> None:
        self._code = code
        self._over.set()

    def over(self, seconds: float = 0.0) -> bool:
        return self._over.wait(seconds)

    def code(self) -> int | None:
        """Its exit code, minus the signal; None when it does not end."""
        return self._code if self._over.wait(PATIENCE) else None


class _Script:
    """A process that answers lines of JSON with lines of JSON."""

    def __init__(self, name: str, env: dict[str, str], errors: Path) -> None:
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / name)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=env,
            )  # fmt: skip
        self._errors = errors

    def tell(self, order: dict[str, Any]) -> None:
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def heard(self) -> Any:
        """The next line; None at the end."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def why(self) -> str:
        return self._errors.read_text("utf-8", "replace")[-2000:]

    def end(self) -> None:
        """No more orders come."""
        assert self.process.stdin
        self.process.stdin.close()

    def close(self) -> None:
        assert self.process.stdout
        self.end()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Place:
    """One target: its stand-ins, the engines, and a client that looks."""

    def __init__(
        self, target: str, clouds: Clouds, folder: Path, pipeline: Path, program: str
    ) -> None:
        self.target, self.clouds, self.control = target, clouds, clouds.control
        self.pipeline = pipeline
        self._folder, self._program = folder, program
        self._env = clouds.environ({**os.environ, "TMPDIR": str(folder)})
        self._engines = _Script("engines.py", self._env, folder / "engines.errors")
        self._looker = _Script("looker.py", self._env, folder / "looker.errors")
        self._asking = threading.Lock()
        self._ordering = threading.Lock()
        self._began: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        self._alive: dict[int, Engine] = {}
        self.listeners: list[Callable[[Call], None]] = []  # hear of each call before it is applied
        self.control.on_call = self._called
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def close(self) -> None:
        for engine in list(self._alive.values()):
            engine.kill()
        self._engines.end()
        self._hearing.join(30)
        self._engines.close()
        self._looker.close()

    def _called(self, call: Call) -> None:
        for hear in list(self.listeners):
            hear(call)

    # -- engines

    def case(self, name: str) -> Case:
        """A run that is to be, with a store, keys and a folder of its own."""
        folder = self._folder / name
        folder.mkdir()
        env, key = {**self._env, "TMPDIR": str(folder)}, "nobody"
        if "AWS_REGION" in env:
            keys = self.ask("keys", name=name)
            env |= keys
            key = keys["AWS_ACCESS_KEY_ID"]
        if "GOOGLE_APPLICATION_CREDENTIALS" in env:
            account = json.loads(Path(env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
            account["client_email"] = f"{name}@local.iam.gserviceaccount.com"
            mine = folder / "account.json"
            mine.write_text(json.dumps(account))
            env["GOOGLE_APPLICATION_CREDENTIALS"] = env["GOOGLE_SERVICE_ACCOUNT"] = str(mine)
        if self.target == "kubernetes":
            env["KUBECONFIG"] = str(self._kubeconfig(folder, name))
        scheme = SCHEMES[self.target]
        uri = f"{scheme}://{BUCKET}/{name}"
        (folder / "portaflow.toml").write_text(
            f"[targets.{self.target}]\n"
            f'store = {{backend = "{_STORES[scheme]}", root = "{uri}/store"}}\n'
            + _TARGETS[self.target]
        )
        return Case(name, folder, uri, env, key)

    def _kubeconfig(self, folder: Path, name: str) -> Path:
        kubernetes: Any = self.clouds.emulators["kubernetes"]
        config = yaml.safe_load(Path(self._env["KUBECONFIG"]).read_text())
        token = kubernetes.access.issue(User(name, "admin"))
        config["users"] = [{"name": u["name"], "user": {"token": token}} for u in config["users"]]
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file

    def run(self, case: Case) -> Engine:
        ledger = () if self.pipeline == DEMO else ("--param", f"ledger={case.uri}/ledger")
        return self._start(case, ("run", str(self.pipeline), "--run-id", "r", *ledger))

    def resume(self, case: Case) -> Engine:
        return self._start(case, ("resume", "r"))

    def _start(self, case: Case, words: Sequence[str]) -> Engine:
        engine = Engine()
        where = ("--target", self.target, "--config", str(case.folder / "portaflow.toml"))
        order = {
            "words": [*words, *where], "env": case.env, "log": str(case.log),
            "program": self._program,
        }  # fmt: skip
        with self._ordering:
            self._began.put(engine)
            self._engines.tell(order)
        until(lambda: engine.pid, 60, self._engines.why)
        case.started.append(engine)
        return engine

    def _hear(self) -> None:
        while said := self._engines.heard():
            if "began" in said:
                engine = self._began.get()
                self._alive[said["began"]] = engine
                engine.pid = said["began"]
            else:
                self._alive.pop(said["ended"]).ended(said["code"])

    # -- what the cloud knows

    def ask(self, verb: str, **words: Any) -> Any:
        with self._asking:
            self._looker.tell({"verb": verb, **words})
            answer = self._looker.heard()
        assert answer is not None, self._looker.why()
        return answer

    def calls(self, case: Case) -> list[Call]:
        """What the engines of a run have asked for, in its order."""
        return [call for call in self.control.seen() if case.made(call)]


@contextmanager
def place(target: str, what: What = "jobs", pace: float = 0.02) -> Iterator[Place]:
    """A target to run in: dags/recommendations, or its shape with jobs that take a blink, or with
    programs of Python for jobs of Spark. No call of an engine differs by these programs, but for
    the words of what a step of EMR runs."""
    alone = what == "programs" and target == "kubernetes"  # a container is a program already
    pipeline = DEMO if what == "demo" else HERE / ("containers" if alone else "pipeline")
    images = {"train": DEMO / "images" / "train"}
    program = "" if what != "programs" else (HERE / "pipeline" / "work.py").read_text()
    folder = Path(tempfile.mkdtemp(prefix="portaflow-kill-"))
    try:
        with (
            _instead_of_spark(program),
            emulate(*CLOUDS[target], pace=pace, images=images, buckets=[BUCKET]) as clouds,
        ):
            one = Place(target, clouds, folder, pipeline, program)
            try:
                yield one
            finally:
                one.close()
    finally:
        shutil.rmtree(folder)


@contextmanager
def _instead_of_spark(program: str) -> Iterator[None]:
    """Let the local Dataproc run a program with a job's arguments, if there is one."""
    plain = spark.Spark.command

    def command(self: Any, words: Sequence[str], folder: Path, conf: Any) -> list[str]:
        _, (_, *arguments) = spark._options(words)
        return [sys.executable, "-c", program, *arguments]

    if program:
        spark.Spark.command = command  # type: ignore[method-assign]
    try:
        yield
    finally:
        spark.Spark.command = plain  # type: ignore[method-assign]


def until(what: Callable[[], Any], seconds: float, why: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {why()}")
        time.sleep(0.01)
    return value
