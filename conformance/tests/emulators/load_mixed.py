"""Mixed load for the local clouds together: what has grown by its end, and what stays behind.

    python conformance/tests/emulators/load_mixed.py --minutes 30

Rounds follow each other until the time is over. In each, unmodified clients in processes of
their own (`load_clients.py`) do at the same time all that they can, faults on order strike them,
and one client is killed in the middle of something. Then everything is taken away, and when
things have come to rest, processes, threads, open files, memory and files are counted. All of it
runs where /tmp and /dev/shm are its own, as root; nothing else may use them otherwise.

Prints a line of JSON for each round and one for the whole; ends with 1 when anything leaked.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.endpoint import RemoteControl

CLIENTS = Path(__file__).with_name("load_clients.py")
KINDS = ("s3", "emr", "serverless", "gcs", "dataproc", "kubernetes")
OUTSIDE = ("/tmp", "/dev/shm")
_PATIENCE = 300.0  # seconds for what a client does in one round
_REST = 20.0  # seconds to come to rest
_SLACK = {"processes": 0, "threads": 2, "descriptors": 4, "files": 0}
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
# Such as unmodified clients get over by themselves: at most two in a row for any call.
_FAULTS: tuple[dict[str, Any], ...] = (
    {"effect": "throttle", "operation": "aws:s3.PutObject"},
    {"effect": "error", "operation": "aws:s3.GetObject", "status": 503},
    {"effect": "reset-before", "operation": "aws:s3.UploadPart"},
    {"effect": "reset-after", "operation": "aws:s3.PutObject"},
    {"effect": "latency", "operation": "aws:s3.ListObjectsV2", "seconds": 0.5},
    {"effect": "reset-after", "operation": "aws:emr.RunJobFlow"},
    {"effect": "throttle", "operation": "aws:emr.ListSteps", "times": 2},
    {"effect": "throttle", "operation": "aws:emr-serverless.GetApplication", "times": 2},
    {"effect": "reset-after", "operation": "aws:emr-serverless.CreateApplication"},
    {"effect": "error", "operation": "gcp:storage.objects.get", "status": 503},
    {"effect": "reset-before", "operation": "gcp:storage.objects.list"},
    {"effect": "error", "operation": "gcp:dataproc.GetCluster", "status": 503},
    {"effect": "latency", "operation": "gcp:dataproc.*", "seconds": 0.3, "times": 3},
    {"effect": "reset-before", "operation": "kubernetes:core.list*", "times": 2},
    {"effect": "expire-watch", "operation": "kubernetes:*", "seconds": 0.2},
)


@dataclass
class Sample:
    """What there is of the stand-ins at rest."""

    processes: int
    threads: int
    descriptors: int
    files: int
    folders: dict[str, int]  # files by where they are
    rss_mb: float  # of the stand-ins themselves
    all_mb: float = 0.0  # with all that they have started, what is shared counted once


@dataclass
class Round:
    number: int
    seconds: float
    spark: bool
    killed: str
    struck: int
    calls: int
    rest: Sample
    problems: list[str]


class Asked:
    """A client that does what it is told by lines."""

    def __init__(self, kind: str, env: dict[str, str], log: Path) -> None:
        self.kind = kind
        with log.open("ab") as err:
            self.child = subprocess.Popen(
                [sys.executable, str(CLIENTS), kind], env=env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
            )  # fmt: skip

    def ask(self, **order: Any) -> None:
        assert self.child.stdin
        self.child.stdin.write(json.dumps(order) + "\n")
        self.child.stdin.flush()

    def answer(self) -> str:
        """What went wrong, "" for nothing."""
        assert self.child.stdout
        line = self.child.stdout.readline()
        if not line:
            return f"{self.kind} ended with {self.child.wait()}"
        problem = json.loads(line)["problem"]
        return f"{self.kind}: {problem}" if problem else ""

    def end(self) -> None:
        self.child.kill()
        self.child.communicate()


class Load:
    def __init__(self, emulator: subprocess.Popen[str], env: dict[str, str], folder: Path) -> None:
        self.emulator, self.env, self.folder = emulator, env, folder
        self.control = RemoteControl(env["PORTAFLOW_EMULATE_URL"])
        self._dice = random.Random(0)
        self._log = folder / "clients.log"
        self.clients = [Asked(kind, env, self._log) for kind in KINDS]
        self.outside = {path for place in OUTSIDE for path in Path(place).iterdir()}

    def round(self, number: int, spark: bool) -> Round:
        began, calls = time.monotonic(), self.control.count("*")
        for fault in self._dice.sample(_FAULTS, 5):
            self.control.order(Fault(**fault))
        for client in self.clients:
            client.ask(round=number, spark=spark)
        victim = KINDS[number % len(KINDS)]
        problems = [self._kill(victim), *(client.answer() for client in self.clients)]
        struck = sum(fault.hit for fault in self.control.ordered())
        self.control.clear()
        for client in self.clients:
            client.ask(tidy=True)
        problems += [client.answer() for client in self.clients]
        rest = self._rest()
        return Round(
            number=number, seconds=round(time.monotonic() - began, 1), spark=spark, killed=victim,
            struck=struck, calls=self.control.count("*") - calls, rest=rest,
            problems=[problem for problem in problems if problem],
        )  # fmt: skip

    def _kill(self, kind: str) -> str:
        with self._log.open("ab") as err:
            victim = subprocess.Popen(
                [sys.executable, str(CLIENTS), kind, "kill"], env=self.env, text=True,
                stdout=subprocess.PIPE, stderr=err,
            )  # fmt: skip
        assert victim.stdout
        said = victim.stdout.readline()
        victim.kill()
        victim.communicate()
        return "" if said == "up\n" else f"the client {kind} ended before it was killed"

    def _rest(self) -> Sample:
        """Count again and again until nothing has changed for a second."""
        end = time.monotonic() + _REST
        last, since = self.sample(), time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < 1:
            time.sleep(0.1)
            now = self.sample()
            if any(getattr(now, name) != getattr(last, name) for name in _SLACK):
                since = time.monotonic()
            last = now
        processes = [psutil.Process(self.emulator.pid)]
        processes += processes[0].children(recursive=True)
        return replace(last, all_mb=round(sum(map(_pss, processes)) / 2**20, 1))

    def sample(self) -> Sample:
        emulator = psutil.Process(self.emulator.pid)
        processes = [emulator, *emulator.children(recursive=True)]
        folders = self._files()
        return Sample(
            processes=len(processes),
            threads=emulator.num_threads(),
            descriptors=emulator.num_fds(),
            files=sum(folders.values()),
            folders=folders,
            rss_mb=round(emulator.memory_info().rss / 2**20, 1),
        )

    def _files(self) -> dict[str, int]:
        """Files by folder: of each stand-in, but for what a store keeps its objects in; and
        what is new outside."""
        found: dict[str, int] = {}
        for top in (self.folder / "tmp").glob("portaflow-emulate-*"):
            for place in top.glob("*/*"):
                if place.is_dir() and place.name != "s3":
                    found[f"{place.parent.name}/{place.name}"] = _count(place)
        for place in OUTSIDE:
            found |= {str(path): 1 for path in set(Path(place).iterdir()) - self.outside}
        return found


def _count(folder: Path) -> int:
    return sum(len(files) + len(folders) for _, folders, files in os.walk(folder))


def _pss(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def grown(rounds: list[Round]) -> list[str]:
    """What was more in each of the last rounds than in any of the first, after one to warm up."""
    samples = [one.rest for one in rounds[1:]]
    third = max(1, len(samples) // 3)
    told = []
    for name, slack in _SLACK.items():
        first = max(getattr(one, name) for one in samples[:third])
        last = min(getattr(one, name) for one in samples[-third:])
        if last > first + slack:
            told.append(f"{name}: {first} -> {last}")
    return told


@contextmanager
def emulated(folder: Path) -> Iterator[Load]:
    (folder / "tmp").mkdir()
    environ = {**os.environ, "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "portaflow", "emulate", "aws", "gcp", "kubernetes", "--json"]
    emulator = subprocess.Popen(
        [*command, "--pace", "0.02"], env=environ, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    with ExitStack() as undo:
        undo.callback(emulator.kill)
        assert emulator.stdout
        told = json.loads("".join(iter(emulator.stdout.readline, "}\n")) + "}")
        inside = {k: v for k, v in environ.items() if k not in told["unset"]} | told["env"]
        load = Load(emulator, inside, folder)
        for client in load.clients:
            undo.callback(client.end)
        yield load


def left(load: Load) -> list[str]:
    """What is still there when the stand-ins have been asked to end."""
    load.emulator.send_signal(signal.SIGTERM)
    code = load.emulator.wait(60)
    found = [f"the stand-ins ended with {code}"] if code else []
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # orphans that became ours
                pass
        things = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
        things += [str(path) for path in (load.folder / "tmp").iterdir()]
        things += [
            str(p) for place in OUTSIDE for p in Path(place).iterdir() if p not in load.outside
        ]
        if not things:
            break
        time.sleep(0.1)
    return found + things


def run(minutes: float, every: int, folder: Path) -> int:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    end = time.monotonic() + 60 * minutes
    rounds: list[Round] = []
    with emulated(folder) as load:
        while time.monotonic() < end or len(rounds) < 3:
            number = len(rounds)
            rounds.append(load.round(number, spark=number % every == 0))
            print(json.dumps(asdict(rounds[-1])), flush=True)
        for client in load.clients:
            client.end()
        stays = left(load)
    problems = [problem for one in rounds for problem in one.problems]
    more = grown(rounds)
    first, last = rounds[1].rest, rounds[-1].rest
    total = {
        "rounds": len(rounds), "calls": sum(one.calls for one in rounds),
        "struck": sum(one.struck for one in rounds), "grown": more, "left": stays,
        "problems": problems, "rss_mb": [first.rss_mb, last.rss_mb],
        "threads": [first.threads, last.threads],
        "descriptors": [first.descriptors, last.descriptors],
        "processes": [first.processes, last.processes], "files": [first.files, last.files],
    }  # fmt: skip
    print(json.dumps(total), flush=True)
    return int(bool(problems or more or stays))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long; at least three rounds")
    parser.add_argument("--spark-every", type=int, default=5, help="rounds from Spark to Spark")
    parser.add_argument("--here", action="store_true", help="in the machine's own /tmp")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        if given.here or os.geteuid() != 0:
            return run(given.minutes, given.spark_every, Path(folder))
        mounts = 'mount --bind "$1" /tmp && mount -t tmpfs none /dev/shm && shift && exec "$@"'
        private = ["unshare", "--mount", "sh", "-c", mounts, "sh", folder]
        again = [sys.executable, str(Path(__file__).resolve()), *words, "--here"]
        return subprocess.run([*private, *again], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
