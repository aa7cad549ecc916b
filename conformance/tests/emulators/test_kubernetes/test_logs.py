"""The logs of pods: what of them a client gets, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


def test_log_options(pod: Pods, ended: Any, log: Any) -> None:
    pod("p", "for i in 1 2 3 4 5; do echo line $i; done; sleep 1.2; echo late")
    ended()
    assert log(tail_lines=2) == "line 5\nlate\n"
    assert log(tail_lines=0) == ""
    assert log(limit_bytes=9) == "line 1\nli"
    assert log(since_seconds=1) == "late\n"
    stamp, _, text = log(timestamps=True, tail_lines=1).partition(" ")
    assert text == "late\n"
    assert stamp.endswith("Z")
    assert len(stamp) == len("2026-01-02T03:04:05.123456789Z")
    assert log(follow=True) == log()


def test_follower_gets_every_line_through_rotation(
    pod: Pods, running: Any, ended: Any, log: Any
) -> None:
    pod(
        "p",
        "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i of many; done; echo done",
    )
    running()
    text = log(follow=True)
    numbers = [int(line.split()[1]) for line in text.splitlines()[:-1]]
    assert numbers == list(range(1, 30001))
    ended()
    assert 0 < len(log()) < 2**18  # the newest file alone


@pytest.fixture(autouse=True, scope="module")
def small_logs(cluster: Any) -> None:
    """Let logs rotate early: the machine that containers share is told before any starts."""
    object.__setattr__(cluster.emulator.kubelet._machine, "log_size", 2**18)
