"""A local AWS of our own, in whose environment the clients of these tests are made."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from portaflow_aws.connect import Access, connect
from portaflow_aws.connect import _all as ways
from portaflow_conformance.emulators.clouds import Clouds, emulate

from .field import Field

PACE = 0.02  # a cluster takes so much of two seconds


@pytest.fixture(scope="module")
def local_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    tmp_path_factory.getbasetemp()  # for all tests of the process: not in the folder below
    before = dict(os.environ)
    with emulate("aws", "kubernetes", pace=PACE) as clouds, tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # where drivers remember what they have asked for
        os.environ.clear()
        os.environ.update(clouds.environ({**before, "TMPDIR": folder}))
        try:
            connect(Access()).client("s3").create_bucket(Bucket="logs")
            yield clouds
        finally:
            os.environ.clear()
            os.environ.update(before)
            tempfile.tempdir = None
            ways.clear()  # they lead to this one


@pytest.fixture
def clouds(local_aws: Clouds) -> Iterator[Clouds]:
    """The local AWS without a fault on order."""
    yield local_aws
    local_aws.control.clear()


@pytest.fixture
def field(clouds: Clouds) -> Iterator[Field]:
    one = Field(clouds)
    yield one
    one.clear()


@pytest.fixture
def until() -> Callable[..., Any]:
    def wait(what: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := what()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)
        return value

    return wait
