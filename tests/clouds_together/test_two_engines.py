"""Two engines on one run: one has it, the other stops, and each thing is made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("moto")

from portaflow_conformance.emulators.clouds import Clouds

from .field import Engines, made, nothing_lives, until

Start = Callable[[], Engines]

PIPELINES = {"aws": "marks", "gcp": "marks", "kubernetes": "boxes"}
places = pytest.mark.parametrize("target", PIPELINES)


@places
@pytest.mark.spark
def test_of_two_that_begin_one_run_at_once_one_does(
    start: Start, clouds: Clouds, looker: Engines, target: str
) -> None:
    before, both = made(clouds), (start(), start())
    for engines in both:
        engines.begin("run", target, PIPELINES[target], "at-once", token="one token")
    told = [engines.told() for engines in both]
    (won,) = (one["answer"] for one in told if "answer" in one)
    (lost,) = (one["error"] for one in told if "error" in one)
    assert "RunError" in lost
    assert "exists already" in lost
    assert won["succeeded"], won
    assert won["outputs"] == ["one token", "one token"]
    assert won["attempts"] == [1, 1]
    once(clouds, before, won["names"])
    nothing_lives(looker)


@places
@pytest.mark.spark
def test_a_run_that_is_taken_over_and_over_is_done_once(
    start: Start, clouds: Clouds, looker: Engines, target: str
) -> None:
    """One is at work; it is asked for, taken, its taker killed, and two go on with it at once."""
    bucket = "gs://portaflow" if target == "gcp" else "s3://portaflow"
    pipeline, gate, before = PIPELINES[target], f"{bucket}/gates/{target}", made(clouds)
    first, second = start(), start()
    first.begin("run", target, pipeline, "taken", token="one token", gate=gate)
    at_work = {"kubernetes": "Job", "gcp": "job", "aws": "step"}[target]
    until(lambda: any(one.startswith(at_work) for one in looker.answer("alive")))

    second.begin("resume", target, pipeline, "taken")
    assert "an engine works on run" in second.told()["error"]
    second.begin("force", target, pipeline, "taken")
    assert "another engine works on the run" in first.told()["error"]
    assert looker.answer("alive")
    second.kill()

    both = (start(), start())
    for engines in both:
        engines.begin("resume", target, pipeline, "taken")
    until(lambda: any(engines.ready() for engines in both))  # who lost says so, the gate is shut
    (lost,) = (engines for engines in both if engines.ready())
    (won,) = (engines for engines in both if engines is not lost)
    assert "engine works on" in lost.told()["error"]
    looker.answer("put", uri=gate)
    done = won.told()["answer"]
    assert done["succeeded"], done
    assert done["outputs"] == ["one token", "one token"]
    assert done["attempts"] == [1, 1]
    once(clouds, before, done["names"])
    nothing_lives(looker)


def once(clouds: Clouds, before: dict[str, int], names: list[str]) -> None:
    """All that was made since then are these, and each was asked for once."""
    since = made(clouds)
    since.subtract(before)
    assert {name: n for name, n in since.items() if n} == dict.fromkeys(names, 1)
