"""The docker backend on a machine without a daemon, or with one that it may not use."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from portaflow_local import daemon
from portaflow_local.docker import Config, Docker

from portaflow.backend import ContainerSpec, Handle
from portaflow.errors import BackendError, DeniedError, UnavailableError


@pytest.fixture
def backend(tmp_path: Path) -> Docker:
    url = f"unix://{tmp_path}/no.sock"
    return Docker(Config(url=url, root=tmp_path / "root", cache=str(tmp_path / "cache")))


def test_without_a_daemon_every_call_says_so_and_how_to_get_one(backend: Docker) -> None:
    driver, handle = backend.containers, Handle(name="pf-x", id="pf-x")
    calls: list[Callable[[], object]] = [
        lambda: driver.find("pf-x"),
        lambda: driver.poll([handle]),
        lambda: driver.logs(handle),
        lambda: driver.stop(handle),
        lambda: list(driver.owned()),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match=r"no\.sock.*podman\.socket") as caught:
            call()
        assert caught.value.retryable


def test_making_the_backend_and_a_request_touches_nothing(backend: Docker) -> None:
    backend.containers.request("pf-x", ContainerSpec(image="x", command=("true",)))
    assert not list(Path(backend.config.root).parent.iterdir())


def test_doctor_says_what_is_missing_and_the_fix(backend: Docker) -> None:
    bad = [f for f in backend.check() if not f.ok]
    assert len(bad) == 1
    assert "no.sock" in bad[0].detail
    assert "podman.socket" in bad[0].fix


def test_the_daemon_is_looked_for_where_the_config_or_docker_host_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://somewhere:1")
    assert daemon.url() == "tcp://somewhere:1"
    assert daemon.url("/run/my.sock") == "unix:///run/my.sock"
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr(daemon, "_SOCKETS", ("$NOT_SET/x", "~/a.sock", "$RUN/b.sock"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUN", str(tmp_path))
    with pytest.raises(UnavailableError, match="DOCKER_HOST is not set") as caught:
        daemon.url()
    assert f"{tmp_path}/a.sock, {tmp_path}/b.sock" in str(caught.value)
    (tmp_path / "b.sock").touch()
    assert daemon.url() == f"unix://{tmp_path}/b.sock"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_a_socket_without_the_right_to_it_is_denied_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and "pytest" in str(folder):
                folder.chmod(0o755)
        daemon.connect  # noqa: B018  imported before the rights are given away
        import docker  # noqa: F401

        os.seteuid(65534)
        try:
            with pytest.raises(BackendError, match="join the group") as caught:
                daemon.connect(f"unix://{path}")
        finally:
            os.seteuid(0)
    assert isinstance(caught.value, DeniedError)


def test_texts_of_daemons_and_registries_are_understood() -> None:
    assert daemon.meaning("unauthorized: authentication required") is DeniedError
    assert daemon.meaning("something new") is None
