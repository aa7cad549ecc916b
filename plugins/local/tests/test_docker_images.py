"""Images are built and pulled behind the start of a container, and what fails is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from portaflow.backend import (
    Cause,
    LogChunk,
    State,
)
from portaflow.errors import ConflictError, RejectedError

from .driven import kill_hard
from .field import Field

pytestmark = pytest.mark.podman

Until = Callable[..., Any]


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
    first = field.start("cat", "/built", **image)
    assert field.status(first).state is State.PENDING  # start did not wait for the build
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
