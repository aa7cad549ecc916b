"""From start to end: stops, the time-to-live, and one name for one container."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from portaflow_local import daemon, launch, sentinel

from portaflow.backend import (
    ContainerSpec,
    Handle,
    State,
    Status,
)
from portaflow.errors import (
    ConflictError,
    RejectedError,
    UnavailableError,
)

from .driven import kill_hard
from .field import Field

pytestmark = pytest.mark.podman

Until = Callable[..., Any]


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


def test_what_is_killed_while_a_stop_is_under_way_was_stopped(
    field: Field, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    handle = field.start("sleep", "100")
    until(lambda: field.running(handle))
    kill = daemon.kill

    def late(api: Any, name: str, signal: str) -> bool:  # as when the sentinel is quicker
        field.podman.run("kill", "--signal=KILL", name)
        until(lambda: daemon.state(daemon.inspect(api, name) or {}) in daemon.ENDED)
        return kill(api, name, signal)

    monkeypatch.setattr(daemon, "kill", late)
    field.driver.stop(handle)
    assert field.status(handle).state is State.STOPPED


def test_what_ended_just_before_a_stop_was_not_stopped(
    field: Field, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Until
) -> None:
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    handle = field.start("sh", "-c", script, mounts=(str(tmp_path),))
    until(lambda: field.running(handle))
    seen = [daemon.inspect(field.driver._api, handle.name)]  # alive
    (tmp_path / "go").touch()
    field.wait(handle)
    inspect = daemon.inspect
    monkeypatch.setattr(daemon, "inspect", lambda *a: seen.pop() if seen else inspect(*a))
    field.driver.stop(handle)
    end = field.new_driver().poll([handle])[handle.name]
    assert isinstance(end, Status)
    assert end.state is State.SUCCEEDED


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
    request = field.request(field.name(), "true")
    request["create"]["Labels"][daemon.TTL] = str(-2 * 86400)
    old, fresh = field.driver.start(request), field.start("true")
    field.podman.run("create", "--name", field.name(), field.podman.image, "true")
    stranger = field.names[-1]
    field.wait(fresh)
    daemon.mark(field.driver._api, old.name, "stop", field.owner)
    until(lambda: not field.podman.sentinels())
    sentinel.wake(field.config.url, daemon.folder(Path(field.config.cache), field.config.url))
    until(lambda: field.driver.find(old.name) is None)
    until(lambda: not field.podman.sentinels())
    assert old.name not in field.podman.run("volume", "ls", "-q")
    assert field.driver.find(fresh.name) == fresh
    assert field.podman.run("ps", "-aq", "--filter", f"name={stranger}")


def test_one_container_in_trouble_is_no_harm_to_the_time_of_another(
    field: Field, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    handles = [field.start("sleep", "100", grace=0) for _ in range(2)]
    for handle in handles:
        until(lambda handle=handle: field.running(handle))
    api, kill = daemon.connect(field.config.url), daemon.kill

    def failing(api: Any, name: str, signal: str) -> bool:
        if name == min(h.name for h in handles):
            raise UnavailableError("this one does not listen")
        return kill(api, name, "SIGKILL")

    monkeypatch.setattr(daemon, "kill", failing)
    monkeypatch.setattr(sentinel, "_over", lambda row: 0.0)
    assert sentinel.sweep(api)
    api.close()
    monkeypatch.undo()
    assert field.wait(max(handles, key=lambda h: h.name)).state is State.STOPPED


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
