"""Real containers through the socket of a real Podman; see conftest.py for where it is from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.docker import Docker

from portaflow.backend import (
    Cause,
    ContainerSpec,
    Handle,
    LogChunk,
    Size,
    State,
    Verdict,
)
from portaflow.errors import DeniedError, NotFoundError, RejectedError

from .field import Field

pytestmark = pytest.mark.podman

Until = Callable[..., Any]
SECRET = "correct horse battery staple"


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


def test_an_image_is_here_or_not_yet(field: Field, podman: Any) -> None:
    backend = Docker(field.config)
    for reference, detail in ((podman.image, "is here"), ("registry.test/no:1", "not here yet")):
        found = backend.check_image(reference)
        assert found is not None
        assert found.detail.startswith(detail)


def test_doctor_is_content_with_this_daemon(field: Field) -> None:
    findings = list(Docker(field.config).check())
    assert all(f.ok for f in findings), findings
    assert any("Podman" in f.detail and field.config.url in f.detail for f in findings)
