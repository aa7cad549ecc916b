"""The docker backend on a machine without a daemon, or with one that it may not use."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from portaflow_local import daemon, sentinel
from portaflow_local.docker import Config, Docker

from portaflow.backend import ContainerSpec, Handle
from portaflow.errors import BackendError, DeniedError, NotFoundError, UnavailableError


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
    assert daemon.meaning("container 1f does not exist: no such container") is NotFoundError
    assert daemon.meaning("something new") is None


CONTAINER = {"State": {"Status": "running"}, "Config": {"Labels": {}, "Env": []}}
ANSWERS: dict[str, tuple[int, object]] = {
    "/version": (200, {"ApiVersion": "1.41"}),
    "/info": (200, {"NCPU": 8, "MemTotal": 2**34}),
    "/volumes": (200, {"Volumes": []}),
    "/images/x/json": (200, {"Config": {}}),
    "/containers/pf-cut/json": (200, CONTAINER),
    "/containers/create": (409, {"message": "the name is already in use"}),
    "/containers/json": (200, []),
}


class Answers(BaseHTTPRequestHandler):
    """A daemon that breaks off in the middle of a log, and is slow to show what it makes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = re.sub(r"^/v[\d.]+|\?.*", "", self.path)
        if path == "/containers/pf-cut/logs":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"\1\0\0\0\0\0\0\5hell")
            self.close_connection = True
            return
        code, value = ANSWERS.get(path, (404, {"message": "no such thing"}))
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Be silent."""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    monkeypatch.setattr(sentinel, "wake", lambda *_: None)  # it has nothing to watch
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"tcp://127.0.0.1:{server.server_address[1]}"
        yield Docker(Config(url=url, root=tmp_path / "root", cache=str(tmp_path / "cache")))
        server.shutdown()
        thread.join()


def test_a_log_that_breaks_off_can_be_asked_for_again(broken: Docker) -> None:
    with pytest.raises(UnavailableError, match="pf-cut") as caught:
        broken.containers.logs(Handle(name="pf-cut", id="pf-cut"))
    assert caught.value.retryable


def test_a_name_that_somebody_takes_at_this_moment_is_no_conflict_yet(broken: Docker) -> None:
    driver = broken.containers
    request = driver.request("pf-x", ContainerSpec(image="x", command=("true",)))
    with pytest.raises(UnavailableError, match="somebody else"):
        driver.start(request)
