"""What fits the daemon's machine, and as whom a container runs there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_local.docker import Docker
from portaflow_local.machine import Machine

from portaflow.backend import (
    Size,
)
from portaflow.errors import RejectedError

from .field import Field

pytestmark = pytest.mark.podman

Until = Callable[..., Any]


# -- size


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (Size(cpu=100_000, memory=0.125), "100000 cores.* has [0-9]+;.* size ="),
        (Size(cpu=0.5, memory=1e6), "1e[+]06 GiB of memory.* has [0-9.]+;.* size ="),
    ],
)
def test_what_the_machine_does_not_have_is_refused_at_once_with_what_it_has(
    field: Field, tmp_path: Path, size: Size, words: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {field.podman.image}\n")
    for more in ({}, {"context": str(tmp_path), "digest": uuid4().hex}):  # no build before
        with pytest.raises(RejectedError, match=words) as caught:
            field.start("true", size=size, **more)
        assert not caught.value.retryable
        assert field.driver.find(field.names[-1]) is None


def test_all_that_the_machine_has_is_given() -> None:
    machine = Machine(cores=2, memory=2**31, podman=False, rootless=False)
    machine.check({"CpuQuota": 200_000, "CpuPeriod": 100_000, "Memory": 2**31})
    Machine.said({}).check({"CpuQuota": 10**9, "CpuPeriod": 100_000, "Memory": 2**60})


# -- user


def test_a_container_without_a_folder_is_not_root_and_has_a_home(field: Field) -> None:
    data = field.output("sh", "-c", 'id -u; touch "$HOME/x" && echo "$HOME"')
    user, home = data.decode().split()
    assert user == str(os.getuid() or 65534)
    assert home == "/tmp"
    assert field.output("sh", "-c", "echo $HOME", env={"HOME": "/mine"}) == b"/mine\n"


def test_what_a_container_writes_to_your_folder_is_yours(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test may be root, so it says that it is somebody else."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and "pytest" in str(folder):
            folder.chmod(0o755)
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    mine.mkdir(mode=0o700)
    os.chown(mine, 4321, 4322)
    ours.mkdir()
    ours.chmod(0o770)
    os.chown(ours, 0, 4323)
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    monkeypatch.setattr(os, "getgid", lambda: 4322)
    monkeypatch.setattr(os, "getgroups", lambda: [4322, 4323])
    script = "mkdir $1/a && echo x >$1/a/b && echo x >$2/c && id -u && id -g"
    both = (str(mine), str(ours))
    assert field.output("sh", "-c", script, "sh", *both, mounts=both) == b"4321\n4322\n"
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (mine / "a/b", ours / "c")}
    assert owners == {(4321, 4322)}


@pytest.mark.skipif(os.getuid() != 0, reason="of somebody else's folders nobody can say more")
def test_root_alone_can_write_to_roots_folder_so_a_container_with_one_is_root(
    field: Field, tmp_path: Path
) -> None:
    script = "touch $1/x && id -u"
    folder = str(tmp_path)
    assert field.output("sh", "-c", script, "sh", folder, mounts=(folder,)) == b"0\n"


def test_a_target_may_say_the_user_and_an_image_too(field: Field, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {field.podman.image}\nUSER 1234\n")
    image = {"context": str(tmp_path), "digest": uuid4().hex}
    assert field.output("id", "-u", **image) == b"1234\n"
    field.config = dataclasses.replace(field.config, user="77:78")
    field.driver = field.new_driver()
    assert field.output("sh", "-c", "id -u; id -g", **image) == b"77\n78\n"
    finding = next(f for f in Docker(field.config).check() if f.what == "user of containers")
    assert finding.detail == "77:78"


def test_with_a_daemon_without_root_you_are_root_in_a_container_to_write_to_your_folder() -> None:
    rootless = Machine.said({"SecurityOptions": ["name=seccomp", "name=rootless"]})
    assert rootless.user(["/store"]) == ("0:0", [])
    assert rootless.user([]) == ("65534:65534", [])
