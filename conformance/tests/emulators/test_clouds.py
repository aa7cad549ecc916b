"""Local clouds from Python, and their control from another process."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.endpoint import RemoteControl
from portaflow_conformance.emulators.running import Running

from portaflow.errors import PluginError, RunError

from .frame import GET, Left, python

pytestmark = pytest.mark.usefixtures("own_tmp")

# -- the control endpoint


def test_faults_calls_and_clock_from_another_process(clouds: Clouds) -> None:
    script = """
import requests
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.endpoint import RemoteControl
control = RemoteControl()
assert control.order(Fault(effect='error', operation='echo:http.*', times=2, status=503)).hit == 0
print([requests.get(f'https://x.echo.test/{n}').status_code for n in range(3)])
print(control.count('echo:*'), [call.params['path'] for call in control.seen('echo:http.Get')])
print([(fault.effect, fault.times, fault.hit) for fault in control.ordered()])
control.clear()
print(control.ordered())
before = control.now()
control.jump(3600)
print(3600 <= control.now() - before < 3700)
"""
    done = python(clouds, script)
    assert done.stdout.splitlines() == [
        "[503, 503, 200]",
        "3 ['/0', '/1', '/2']",
        "[('error', 0, 2)]",
        "[]",
        "True",
    ], done.stderr
    assert clouds.control.now() > time.time() + 3500


@pytest.mark.parametrize(
    ("verb", "name", "body", "told"),
    [
        ("POST", "faults", {"effect": "explode"}, "effect of a fault is one of throttle"),
        ("POST", "faults", {"efect": "error"}, "a fault has no 'efect'"),
        ("POST", "faults", [], "a fault is a JSON object"),
        ("POST", "faults", {"effect": "error", "times": "2"}, "times of a fault is of type int"),
        ("POST", "clock", {"seconds": "soon"}, "a jump of the clock is"),
        ("GET", "nothing", None, "there is no GET /nothing"),
    ],
)
def test_a_wrong_order_is_answered_with_what_is_wrong(
    clouds: Clouds, verb: str, name: str, body: Any, told: str
) -> None:
    control = RemoteControl(clouds.env["PORTAFLOW_EMULATE_URL"])
    with pytest.raises(ValueError, match=re.escape(told)):
        control._ask(verb, name, body)
    assert control.ordered() == []


def test_nobody_orders_without_the_token(clouds: Clouds) -> None:
    url = clouds.env["PORTAFLOW_EMULATE_URL"].rpartition("/")[0]
    for path in ("faults", "wrong/faults", "/faults"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/{path}", timeout=10)
        assert refused.value.code == 403
        refused.value.close()


def test_outside_of_an_environment_the_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORTAFLOW_EMULATE_URL", raising=False)
    with pytest.raises(ValueError, match="inside `portaflow emulate`"):
        RemoteControl()


# -- from Python


def test_side_by_side_each_has_its_own(own_tmp: None, left: Left) -> None:
    with emulate("echo_cloud:Echo") as one, emulate("echo_cloud:Echo") as two:
        one.control.order(Fault(effect="error", operation="echo:*", status=503))
        assert python(two, GET).stdout.startswith("200 ")
        assert python(one, GET).stdout.startswith("503 ")
        assert (one.control.count("echo:*"), two.control.count("echo:*")) == (1, 1)
        one.stop()
        assert python(two, GET).stdout.startswith("200 ")
    assert left() == []


def test_one_that_does_not_start_ends_the_others(left: Left) -> None:
    before = threading.enumerate()
    with (
        pytest.raises(RunError, match="stand-in refuses did not start: OSError: the disk is full"),
        emulate("echo_cloud:Echo", "echo_cloud:Refuses"),
    ):
        pass
    assert left() == []
    assert not [t for t in threading.enumerate() if t not in before]


def test_one_that_does_not_stop_is_told_when_the_others_have(left: Left) -> None:
    with (
        pytest.raises(RunError, match="sticks did not stop: OSError: it is stuck"),
        emulate("echo_cloud:Echo", "echo_cloud:Sticks"),
    ):
        pass
    assert left() == []


def test_two_that_claim_one_host_are_refused(left: Left) -> None:
    with (
        pytest.raises(PluginError, match="claims hosts"),
        emulate("echo_cloud:Echo", "echo_cloud:Twin"),
    ):
        pass
    assert left() == []


def test_a_command_that_is_leashed_runs_though_many_files_are_open(tmp_path: Path) -> None:
    files = [(tmp_path / "open").open("w") for _ in range(20)]
    try:
        out = tmp_path / "out"
        command = ["sh", "-c", "cat; ls /proc/self/fd; exit 5"]
        running = Running(command, tmp_path, env=os.environ, stdout=out, stderr=out)
        assert running.wait(20) == 5
        assert out.read_text().split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    finally:
        for file in files:
            file.close()
