"""Real containers through the socket of a real Podman; see conftest.py for where it is from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_local import daemon, launch, sentinel
from portaflow_local.docker import Config, Docker, DockerDriver

from portaflow.backend import (
    Cause,
    ContainerSpec,
    Handle,
    LogChunk,
    Request,
    Size,
    State,
    Status,
    Verdict,
)
from portaflow.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
)

pytestmark = pytest.mark.podman

Until = Callable[..., Any]
SECRET = "correct horse battery staple"

# What another process does: it starts a container as portaflow would, and says so.
STARTER = """
import json, sys
from pathlib import Path
from portaflow.backend import ContainerSpec
from portaflow_local.docker import Config, Docker
url, root, cache, name, spec = sys.argv[1:]
driver = Docker(Config(url=url, root=Path(root), cache=cache)).containers
driver.start(driver.request(name, ContainerSpec(**json.loads(spec))))
print("started", flush=True)
sys.stdin.read()
"""


class Field:
    """A driver, and names that belong to this test alone."""

    def __init__(self, podman: Any, folder: Path) -> None:
        self.podman = podman
        self.config = Config(
            url=podman.url, root=folder / "root", cache=str(podman.folder / "cache")
        )
        self.driver = self.new_driver()
        self.owner = f"o-{uuid4().hex[:8]}"
        self.names: list[str] = []

    def new_driver(self) -> DockerDriver:
        return Docker(self.config).containers

    def name(self) -> str:
        self.names.append(f"pf-{uuid4().hex[:12]}-1")
        return self.names[-1]

    def spec(self, *command: str, **more: Any) -> ContainerSpec:
        """A small container; it does not run away when a test is broken."""
        small = {"owner": self.owner, "ttl": 120, "grace": 1, "size": Size(cpu=0.5, memory=0.125)}
        return ContainerSpec(**{**small, "image": self.podman.image, "command": command, **more})

    def request(self, name: str, *command: str, **more: Any) -> Request:
        """A request with an override of the user's merged in: no network, which is slow."""
        request = self.driver.request(name, self.spec(*command, **more))
        host = {**request["create"]["HostConfig"], "NetworkMode": "none"}
        return {**request, "create": {**request["create"], "HostConfig": host}}

    def start(self, *command: str, **more: Any) -> Handle:
        return self.driver.start(self.request(self.name(), *command, **more))

    def status(self, handle: Handle) -> Status:
        status = self.driver.poll([handle])[handle.name]
        assert isinstance(status, Status), status
        return status

    def wait(self, handle: Handle, seconds: float = 30) -> Status:
        deadline = time.monotonic() + seconds
        while not (status := self.status(handle)).state.final:
            assert time.monotonic() < deadline, f"{status} after {seconds} s"
            time.sleep(0.02)
        return status

    def running(self, handle: Handle) -> bool:
        return self.status(handle).state is State.RUNNING

    def log(self, handle: Handle) -> bytes:
        data, chunk = b"", LogChunk(data=b"", cursor="", end=False)
        while not chunk.end:
            chunk = self.driver.logs(handle, chunk.cursor)
            data += chunk.data
        return data

    def output(self, *command: str, **more: Any) -> bytes:
        handle = self.start(*command, **more)
        status = self.wait(handle)
        data = self.log(handle)
        assert status.state is State.SUCCEEDED, (status, data)
        return data

    def process(self, name: str, **spec: Any) -> subprocess.Popen[str]:
        """Another process that has started a container and is still there."""
        words = [self.config.url, str(self.config.root), self.config.cache, name, json.dumps(spec)]
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        return process


@pytest.fixture
def field(podman: Any, tmp_path: Path) -> Iterator[Field]:
    field = Field(podman, tmp_path)
    yield field
    for name in field.names:
        field.driver.stop(Handle(name=name, id=name))  # a build
    podman.run("rm", "--force", "--time=0", "--ignore", *field.names) if field.names else None


def kill_hard(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


# -- what runs


def test_exit_codes_are_told(field: Field) -> None:
    codes = (0, 1, 42, 126, 127, 255)
    handles = [field.start("sh", "-c", f"exit {code}") for code in codes]
    ends = [field.wait(h) for h in handles]
    assert [e.exit_code for e in ends] == list(codes)
    assert [e.state for e in ends] == [State.SUCCEEDED] + [State.FAILED] * 5
    assert "exit code 42" in ends[2].reason
    assert {e.cause for e in ends[1:]} == {Cause.USER}


def test_death_by_a_signal_from_outside_is_told_with_the_limit(field: Field, until: Until) -> None:
    handle = field.start("sleep", "100")
    until(lambda: field.running(handle))
    field.podman.run("kill", "--signal=KILL", handle.name)
    end = field.wait(handle)
    assert (end.state, end.exit_code) == (State.FAILED, 137)
    assert "SIGKILL" in end.reason
    assert "0.125 GiB" in end.reason


def test_too_much_memory_ends_a_container_and_is_told_in_words(field: Field) -> None:
    end = field.wait(field.start("tail", "/dev/zero", size=Size(cpu=1, memory=0.03125)))
    assert (end.state, end.exit_code, end.cause) == (State.FAILED, 137, Cause.USER)
    assert "out of memory" in end.reason
    assert "0.03125 GiB" in end.reason


def test_limits_of_the_size_are_set(field: Field) -> None:
    handle = field.start("true", size=Size(cpu=0.5, memory=0.25))
    form = "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpuPeriod}}"
    memory, quota, period = field.podman.run("inspect", handle.name, "--format", form).split()
    assert int(memory) == 2**28
    assert int(quota) / int(period) == 0.5
    assert field.driver.fit(field.spec("true")) == {}
    disk = field.driver.fit(field.spec("true", size=Size(disk=99)))
    assert disk["size.disk"].verdict is Verdict.APPROXIMATED


def test_a_gpu_that_podman_would_drop_silently_is_refused(field: Field) -> None:
    with pytest.raises(RejectedError, match="gpu"):
        field.start("true", size=Size(gpu=1))
    assert field.driver.find(field.names[-1]) is None


def test_arguments_arrive_verbatim(field: Field) -> None:
    args = ("a b", "", "\"q'", "x\ny", "é✓", "$HOME $(id) `id`", "%s", "}}", "-n", "*")
    data = field.output("printf", "[%s]", args=args)
    assert data.decode() == "".join(f"[{a}]" for a in args)


def test_environment_arrives_verbatim_and_not_the_parents(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "yes")
    env = {"A": "$X $(X) ${X}", "EMPTY": "", "LINES": "a\nb", "U": "é✓", "EQ": "a=b"}
    shown = "; ".join(f'printf "%s|" "${key}"' for key in env)
    data = field.output("sh", "-c", f"{shown}; env", env=env).decode()
    assert data.startswith("".join(f"{value}|" for value in env.values()))
    assert "OF_THE_PARENT" not in data


@pytest.fixture
def context(tmp_path: Path, podman: Any) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {podman.image}\nWORKDIR /some/where\nUSER 1234\n"
        'ENTRYPOINT ["echo", "entry"]\nCMD ["cmd"]\n'
    )
    return folder


@pytest.mark.parametrize(
    ("command", "args", "output"),
    [
        ((), (), b"entry cmd\n"),
        ((), ("a", "b"), b"entry a b\n"),
        (("echo", "mine"), (), b"mine\n"),
        (("echo", "mine"), ("a",), b"mine a\n"),
    ],
)
def test_command_replaces_the_entrypoint_and_args_the_default_ones(
    field: Field, context: Path, command: tuple[str, ...], args: tuple[str, ...], output: bytes
) -> None:
    image = {"image": "matrix", "context": str(context), "digest": "1" * 64}
    assert field.output(*command, args=args, **image) == output


def test_working_folder_and_user_are_the_images(field: Field, context: Path) -> None:
    image = {"image": "matrix", "context": str(context), "digest": "1" * 64}
    assert field.output("sh", "-c", "pwd; id -u", **image) == b"/some/where\n1234\n"


def test_mounts_are_seen_at_the_same_path_and_written(field: Field, tmp_path: Path) -> None:
    store = tmp_path / "a store: x"
    store.mkdir()
    (store / "in").write_text("given")
    script = 'cat "$1/in"; echo made > "$1/out"'
    data = field.output("sh", "-c", script, "sh", str(store), mounts=(str(store),))
    assert data == b"given"
    assert (store / "out").read_text() == "made\n"


def test_ten_at_once_do_not_mix(field: Field) -> None:
    with ThreadPoolExecutor(4) as pool:
        handles = list(
            pool.map(lambda n: field.start("sh", "-c", f"echo {n}; exit {n}"), range(10))
        )
    assert [field.wait(h).exit_code for h in handles] == list(range(10))
    assert [field.log(h) for h in handles] == [f"{n}\n".encode() for n in range(10)]


# -- secrets


def test_a_secret_is_delivered_and_nowhere_else(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_DB_PASSWORD", SECRET)
    script = 'echo "it is $PW"; [ "$PW" = "correct horse battery staple" ] && exit 3'
    spec = field.spec("sh", "-c", script, secrets={"PW": "db-password"})
    assert SECRET not in json.dumps(field.driver.request("pf-x", replace_command(spec)))
    handle = field.start("sh", "-c", script, secrets={"PW": "db-password"})
    monkeypatch.delenv("PORTAFLOW_SECRET_DB_PASSWORD")  # whoever reads the log need not know it
    end = field.wait(handle)
    assert end.exit_code == 3
    assert SECRET not in end.reason
    assert field.log(handle) == b"it is ***\n"
    assert SECRET not in field.podman.run("inspect", handle.name, "--format", "{{.Config.Labels}}")
    for file in filter(Path.is_file, field.config.root.rglob("*")):
        assert SECRET.encode() not in file.read_bytes()


def replace_command(spec: ContainerSpec) -> ContainerSpec:
    """The same without the words of the test's own script, which hold the secret."""
    import dataclasses

    return dataclasses.replace(spec, command=("true",))


def test_a_secret_that_is_missing_is_denied_with_the_variable_to_set(field: Field) -> None:
    with pytest.raises(DeniedError, match="PORTAFLOW_SECRET_NOT_THERE"):
        field.start("true", secrets={"PW": "not-there"})
    assert field.driver.find(field.names[-1]) is None


def test_a_secret_on_the_border_of_two_chunks_is_masked(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_S", SECRET)
    script = f"head -c {2**20 - 9} /dev/zero | tr '\\0' x; printf %s \"$S\"; printf end"
    handle = field.start("sh", "-c", script, secrets={"S": "s"})
    field.wait(handle)
    first = field.driver.logs(handle)
    assert not first.end
    data = field.log(handle)
    assert data == b"x" * (2**20 - 9) + b"***end"


# -- images


def test_a_missing_image_is_built_in_the_background_and_once(
    field: Field, tmp_path: Path, until: Until
) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {field.podman.image}\nRUN sleep 2; date +%s%N > /built\n"
    )
    image = {"image": "slow", "context": str(folder), "digest": uuid4().hex * 2}
    began = time.monotonic()
    first = field.start("cat", "/built", **image)
    assert time.monotonic() - began < 1.5  # start did not wait for the build
    assert field.status(first).state is State.PENDING
    assert field.driver.find(first.name) == first
    assert first in list(field.driver.owned(field.owner))
    assert field.driver.logs(first) == LogChunk(data=b"", cursor="", end=False)
    again = field.request(first.name, "cat", "/built", **image)
    assert field.driver.start(again) == first
    with pytest.raises(ConflictError):
        field.driver.start(field.request(first.name, "true", **image))
    assert field.wait(first).state is State.SUCCEEDED
    assert field.output("cat", "/built", **image) == field.log(first)


def test_a_build_and_its_container_outlive_the_process_that_asked(
    field: Field, tmp_path: Path
) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {field.podman.image}\nRUN sleep 1\n")
    name = field.name()
    kill_hard(
        field.process(
            name, owner=field.owner, context=str(folder), digest=uuid4().hex, command=["echo", "hi"]
        )
    )
    handle = field.driver.find(name)
    assert handle
    assert field.wait(handle).state is State.SUCCEEDED
    assert field.log(handle) == b"hi\n"


def test_a_build_can_be_stopped_and_starts_nothing(field: Field, tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {field.podman.image}\nRUN sleep 5\n")
    handle = field.start("true", context=str(folder), digest=uuid4().hex)
    field.driver.stop(handle)
    field.driver.stop(handle)
    assert field.wait(handle, 4).state is State.STOPPED
    assert not field.podman.run("ps", "-aq", "--filter", f"name={handle.name}")
    assert handle not in list(field.driver.owned())


def test_a_build_that_fails_is_told_with_its_log(field: Field, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {field.podman.image}\nRUN echo because; exit 9\n")
    handle = field.start("true", image="broken", context=str(folder), digest=uuid4().hex)
    end = field.wait(handle)
    assert (end.state, end.cause) == (State.FAILED, Cause.USER)
    assert "cannot be built" in end.reason
    assert b"because" in field.log(handle)


def test_a_folder_without_a_dockerfile_is_told(field: Field, tmp_path: Path) -> None:
    end = field.wait(field.start("true", context=str(tmp_path), digest=uuid4().hex))
    assert (end.state, end.cause) == (State.FAILED, Cause.USER)
    assert "no Dockerfile" in end.reason


def test_an_image_is_pulled_from_its_registry(field: Field) -> None:
    image = f"{field.podman.registry}/here/busybox:1"
    assert field.output("echo", "pulled", image=image) == b"pulled\n"


@pytest.mark.parametrize(
    ("reference", "cause", "words"),
    [
        ("here/no-such:1", Cause.USER, "check the reference"),
        ("denied/private:1", Cause.DENIED, "denied"),
    ],
)
def test_an_image_that_cannot_be_had_fails_fast_and_says_why(
    field: Field, reference: str, cause: Cause, words: str
) -> None:
    handle = field.start("true", image=f"{field.podman.registry}/{reference}")
    end = field.wait(handle, 10)
    assert (end.state, end.cause) == (State.FAILED, cause), end
    assert words in end.reason
    assert reference in end.reason


def test_a_registry_out_of_reach_is_not_the_users_fault(field: Field) -> None:
    end = field.wait(field.start("true", image="127.0.0.1:9/x/y:1"), 20)
    assert (end.state, end.cause) == (State.FAILED, Cause.INFRA), end


def test_a_program_that_is_not_in_the_image_is_rejected_and_leaves_nothing(field: Field) -> None:
    for program in ("/no/such", "/bin"):
        with pytest.raises(RejectedError, match=program):
            field.start(program)
        name = field.names[-1]
        assert field.driver.find(name) is None
        assert not field.podman.run("ps", "-aq", "--filter", f"name={name}")


# -- stop


def test_stop_is_polite_first(field: Field, until: Until) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    handle = field.start("sh", "-c", script, grace=30)
    until(lambda: b"ready" in field.driver.logs(handle).data)
    field.driver.stop(handle)
    end = field.wait(handle, 10)
    assert (end.state, end.exit_code) == (State.STOPPED, 7)
    assert b"bye" in field.log(handle)


def test_what_ignores_a_stop_is_killed_after_the_grace_and_nobody_waits(
    field: Field, until: Until
) -> None:
    handle = field.start("sh", "-c", "trap '' TERM; echo ready; sleep 100", grace=2)
    until(lambda: b"ready" in field.driver.logs(handle).data)
    began = time.monotonic()
    field.driver.stop(handle)
    field.driver.stop(handle)
    assert time.monotonic() - began < 1
    assert field.running(handle)
    end = field.wait(handle, 10)
    assert 1.5 < time.monotonic() - began < 6
    assert (end.state, end.exit_code) == (State.STOPPED, 137)


def test_stop_is_silent_when_nothing_was_started_or_all_is_over(field: Field) -> None:
    field.driver.stop(Handle(name=field.name(), id="x"))
    handle = field.start("true")
    field.wait(handle)
    field.driver.stop(handle)
    assert field.new_driver().poll([handle])[handle.name] == field.status(handle)
    assert field.status(handle).state is State.SUCCEEDED
    field.podman.run("rm", handle.name)
    field.driver.stop(handle)


def test_a_stop_is_known_to_every_process(field: Field) -> None:
    handle = field.start("sleep", "100", grace=0)
    field.driver.stop(handle)
    field.wait(handle)
    status = field.new_driver().poll([handle])[handle.name]
    assert isinstance(status, Status)
    assert status.state is State.STOPPED


# -- time-to-live


def test_the_time_to_live_ends_a_container_without_a_shell_though_its_starter_is_dead(
    field: Field,
) -> None:
    name = field.name()
    began = time.monotonic()
    kill_hard(
        field.process(
            name,
            owner=field.owner,
            ttl=2,
            grace=1,
            image=field.podman.bare,
            command=["/sleep", "100"],
        )
    )
    handle = field.driver.find(name)
    assert handle
    assert field.running(handle)
    end = field.wait(handle, 15)
    assert end.state is State.STOPPED
    assert "time-to-live of 2 s" in end.reason
    assert time.monotonic() - began < 10


def test_a_sentinel_that_was_killed_is_back_with_the_next_call(field: Field, until: Until) -> None:
    old = field.start("sleep", "100", ttl=3, grace=0)
    until(field.podman.sentinels)
    for pid in field.podman.sentinels():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not field.podman.sentinels())
    field.start("true")
    assert field.wait(old, 15).state is State.STOPPED


def test_one_sentinel_watches_however_many_ask(field: Field, until: Until) -> None:
    handles = [field.start("sleep", "100", grace=0) for _ in range(3)]
    folder = daemon.folder(Path(field.config.cache), field.config.url)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            pool.submit(sentinel.wake, field.config.url, folder)
    until(lambda: len(field.podman.sentinels()) == 1)
    for handle in handles:
        field.driver.stop(handle)


def test_what_ended_long_ago_is_removed_and_nothing_else(field: Field, until: Until) -> None:
    long_ago = -2 * 86400
    request = field.request(field.name(), "true")
    request["create"]["Labels"][daemon.TTL] = str(long_ago)
    old, fresh = field.driver.start(request), field.start("true")
    field.podman.run("create", "--name", field.name(), field.podman.image, "true")
    stranger = field.names[-1]
    field.wait(fresh)
    until(lambda: field.driver.find(old.name) is None)
    sentinel.wake(field.config.url, daemon.folder(Path(field.config.cache), field.config.url))
    until(lambda: old.name not in field.podman.run("volume", "ls", "-q"))
    assert field.driver.find(fresh.name) == fresh
    assert field.podman.run("ps", "-aq", "--filter", f"name={stranger}")


# -- identity


def test_another_process_finds_adopts_and_stops_what_a_killed_one_started(field: Field) -> None:
    name = field.name()
    kill_hard(
        field.process(
            name,
            owner=field.owner,
            ttl=120,
            grace=0,
            image=field.podman.image,
            command=["sleep", "100"],
        )
    )
    handle = field.driver.find(name)
    assert handle
    spec = ContainerSpec(
        owner=field.owner, ttl=120, grace=0, image=field.podman.image, command=("sleep", "100")
    )
    assert field.driver.start(field.driver.request(name, spec)) == handle
    assert list(field.driver.owned(field.owner)) == [handle]
    assert handle in list(field.driver.owned())
    field.driver.stop(handle)
    assert field.wait(handle).state is State.STOPPED
    assert list(field.driver.owned(field.owner)) == []
    assert field.driver.find(name) == handle  # ended, and still known


def test_one_name_started_twice_is_one_container_or_a_conflict(field: Field) -> None:
    handle = field.start("sh", "-c", "echo once")
    request = field.request(handle.name, "sh", "-c", "echo once")
    assert field.driver.start(request) == handle
    field.wait(handle)
    assert field.new_driver().start(request) == handle
    assert field.log(handle) == b"once\n"
    with pytest.raises(ConflictError, match=handle.name):
        field.driver.start(field.request(handle.name, "true"))


def test_a_name_of_a_strangers_container_is_a_conflict_and_it_is_left_alone(field: Field) -> None:
    name = field.name()
    field.podman.run("run", "--detach", "--name", name, field.podman.image, "sleep", "100")
    assert field.driver.find(name) is None
    with pytest.raises(ConflictError):
        field.driver.start(field.driver.request(name, field.spec("true")))
    assert field.podman.run("ps", "-q", "--filter", f"name={name}")


def test_a_race_of_processes_for_one_name_starts_one_container(
    field: Field, tmp_path: Path
) -> None:
    name, store = field.name(), tmp_path / "store"
    store.mkdir()
    spec = {
        "owner": field.owner, "ttl": 120, "image": field.podman.image, "mounts": [str(store)],
        "command": ["sh", "-c", f"echo x >> {store}/runs; sleep 100"],
    }  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        processes = list(pool.map(lambda _: field.process(name, **spec), range(8)))
    for process in processes:
        kill_hard(process)
    assert field.podman.run("ps", "-aq", "--filter", f"name={name}").count("\n") == 0
    assert (store / "runs").read_text() == "x\n"


def test_a_container_whose_maker_died_before_its_start_is_adopted(field: Field) -> None:
    request = field.request(field.name(), "echo", "late")
    api = daemon.connect(field.config.url)
    labels = {**request["create"]["Labels"], daemon.REQUEST: launch.digest(request)}
    api.create_container_from_config({**request["create"], "Labels": labels}, request["name"])
    api.close()
    assert field.driver.find(request["name"]) is None
    handle = field.driver.start(request)
    assert field.wait(handle).state is State.SUCCEEDED
    assert field.log(handle) == b"late\n"


def test_requests_are_pure_json_and_carry_the_time_to_live_and_the_owner(field: Field) -> None:
    spec = field.spec("true", env={"A": "1"}, mounts=("/x",))
    one, two = (field.driver.request("pf-a", spec) for _ in range(2))
    assert one == two == json.loads(json.dumps(one))
    assert one["create"]["Labels"][daemon.TTL] == "120"
    assert one["create"]["Labels"][daemon.OWNER] == field.owner
    with pytest.raises(RejectedError, match="image"):
        field.driver.request("pf-a", ContainerSpec(command=("true",)))


# -- logs


def test_a_log_is_read_in_pieces_without_gap_or_repeat_while_it_grows(
    field: Field, tmp_path: Path
) -> None:
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; echo err $i >&2; done"
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    handle = field.start("sh", "-c", f"{script}; {wait}; {script}", mounts=(str(tmp_path),))
    data, chunk, pieces = b"", LogChunk(data=b"", cursor="", end=False), 0
    while not chunk.end:
        chunk = field.new_driver().logs(handle, chunk.cursor)  # as another process would
        pieces += bool(chunk.data)
        data += chunk.data
        if data.count(b"\n") >= 800:
            (tmp_path / "go").touch()
    lines = data.decode().splitlines()
    for word in ("line", "err"):
        mine = [line for line in lines if line.startswith(word)]
        assert mine == [f"{word} {i}" for i in range(1, 401)] * 2
    assert pieces > 1
    assert field.driver.logs(handle, chunk.cursor) == LogChunk(
        data=b"", cursor=chunk.cursor, end=True
    )


def test_odd_lines_are_kept_as_they_are(field: Field) -> None:
    script = r"head -c 1048577 /dev/zero | tr '\0' a; printf '\n\377\376\000\r\nend'"
    handle = field.start("sh", "-c", script)
    field.wait(handle)
    assert field.log(handle) == b"a" * 1048577 + b"\n\xff\xfe\x00\r\nend"


def test_the_log_of_a_container_that_ends_at_once_is_whole(field: Field) -> None:
    handles = [field.start("seq", "5000") for _ in range(3)]
    for handle in handles:
        field.wait(handle)
        assert field.log(handle) == b"".join(b"%d\n" % i for i in range(1, 5001))


# -- asking


def test_one_list_call_tells_of_all_and_only_an_end_is_looked_at_once(
    field: Field, until: Until
) -> None:
    running = [field.start("sleep", "100", grace=0) for _ in range(3)]
    ended = field.start("false")
    field.wait(ended)
    driver, calls = field.new_driver(), []
    driver._api.hooks["response"].append(lambda answer, **_: calls.append(answer.request.path_url))
    driver.poll([*running, ended])
    first = len(calls)
    calls.clear()
    driver.poll([*running, ended])
    assert len(calls) == 1, calls
    assert 1 < first <= 6  # the list, and what the one that ended is worth
    for handle in running:
        field.driver.stop(handle)
    for handle in running:
        field.wait(handle)


def test_what_is_unknown_or_was_removed_is_not_found(field: Field) -> None:
    gone = field.start("true")
    field.wait(gone)
    field.podman.run("rm", gone.name)
    for handle in (gone, Handle(name="pf-never", id="pf-never")):
        assert isinstance(field.driver.poll([handle])[handle.name], NotFoundError)
        assert field.driver.find(handle.name) is None
        with pytest.raises(NotFoundError):
            field.driver.logs(handle)


def test_doctor_is_content_with_this_daemon(field: Field) -> None:
    findings = list(Docker(field.config).check())
    assert all(f.ok for f in findings), findings
    assert any("Podman" in f.detail and field.config.url in f.detail for f in findings)
