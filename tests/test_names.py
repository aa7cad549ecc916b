"""Names are identity: legal everywhere, the same on every machine, one for each thing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaflow.names import file_part, key_part, owner_label, resource_name

anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
words = st.one_of(anything, st.sampled_from(["a", "a-b", "a b", "A", "ä", "-", "", "x" * 200]))
attempts = st.integers(1, 10_000)
parts = st.tuples(words, words, st.sampled_from(["job", "cluster", "container"]), words, attempts)


@given(parts)
def test_a_resource_name_is_legal_in_every_cloud(thing: tuple[str, str, str, str, int]) -> None:
    name = resource_name(*thing)
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    assert len(name) <= 40


@given(parts, parts)
def test_names_are_equal_only_for_equal_things(
    one: tuple[str, str, str, str, int], other: tuple[str, str, str, str, int]
) -> None:
    assert (resource_name(*one) == resource_name(*other)) == (one == other)


def test_a_name_is_the_same_on_every_machine_and_says_what_it_is_for() -> None:
    name = resource_name("recommendations", "s3://lake/recommendations/r1", "job", "features", 3)
    assert name == "pf-recommenda-features-666f84d127eb-3"


def test_runs_of_one_id_in_two_stores_share_no_name() -> None:
    here, there = (f"file:///{place}/store/demo/monday" for place in ("here", "there"))
    assert resource_name("demo", here, "job", "a") != resource_name("demo", there, "job", "a")
    assert owner_label("demo", here) != owner_label("demo", there)


@given(words, words)
def test_an_owner_is_label_safe(pipeline: str, run: str) -> None:
    owner = owner_label(pipeline, run)
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", owner)
    assert len(owner) <= 40


@given(words)
def test_a_key_part_is_one_part_and_hides_nothing(name: str) -> None:
    part = key_part(name)
    assert re.fullmatch(r"[A-Za-z0-9=-][A-Za-z0-9._=-]{0,79}", part)
    assert part not in (".", "..")


@given(words)
def test_a_plain_name_stays_readable(name: str) -> None:
    if re.fullmatch(r"[a-z]{1,20}", name):
        assert key_part(name) == name


@pytest.mark.parametrize("name", ["my job.py", "größe.py", "a b.tar.gz", "x" * 90 + ".jar"])
def test_a_files_part_keeps_its_suffix(name: str) -> None:
    part = file_part(name)
    assert part != name
    assert part.rpartition(".")[2] == name.rpartition(".")[2]
    assert re.fullmatch(r"[A-Za-z0-9=-][A-Za-z0-9._=-]{0,89}", part)


@pytest.mark.parametrize("name", ["job.py", "a-1.2.jar", ".hidden", "no suffix", "a.b c"])
def test_a_files_part_is_else_that_of_any_name(name: str) -> None:
    assert file_part(name) == key_part(name)


@given(words, words)
def test_other_names_give_other_keys(one: str, other: str) -> None:
    assert (key_part(one) == key_part(other)) == (one == other)


@given(words)
def test_no_name_takes_the_key_that_another_was_changed_to(name: str) -> None:
    part = key_part(name)
    assert part == name or key_part(part) != part
