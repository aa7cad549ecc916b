"""No part of a secret leaves a log, wherever a log is cut."""

from __future__ import annotations

import random

import pytest
from portaflow_local import secret

from portaflow.errors import DeniedError


def told(data: bytes, cuts: list[int], values: list[bytes]) -> bytes:
    """What a reader sees who reads pieces that end at `cuts`, as the drivers' `logs` does."""
    seen, position = b"", 0
    for cut in [*cuts, len(data)]:
        piece = data[position : max(cut, position)]
        piece = piece if cut == len(data) else secret.uncut(piece, values)
        seen += secret.without(piece, values)
        position += len(piece)
    return seen


@pytest.mark.parametrize("cut", range(25))
def test_a_secret_is_masked_wherever_a_piece_ends(cut: int) -> None:
    assert told(b"before s3cr3t! after more", [cut], [b"s3cr3t!"]) == b"before *** after more"


def test_pieces_that_end_inside_a_secret_again_and_again_still_mask_it() -> None:
    data = b"xx" + b"abcabcabd" * 3 + b"yy"
    assert told(data, list(range(1, len(data))), [b"abcabcabd"]) == b"xx" + b"***" * 3 + b"yy"


def test_a_secret_that_ends_as_it_begins_is_not_cut_after_it_is_whole() -> None:
    assert told(b"x aba y", [5], [b"aba"]) == b"x *** y"


def test_the_longest_of_secrets_that_begin_alike_is_masked() -> None:
    values = [b"pass", b"password"]
    for cut in range(10):
        assert told(b"a password", [cut], values) == b"a ***"


def test_pieces_give_what_the_whole_gives_for_any_secrets_and_cuts() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        values = [
            bytes(chance.choices(b"ab", k=chance.randint(1, 5)))
            for _ in range(chance.randint(0, 3))
        ]
        data = bytes(chance.choices(b"abc", k=chance.randint(0, 30)))
        cuts = sorted(chance.choices(range(len(data) + 1), k=3))
        assert told(data, cuts, values) == secret.without(data, values), (data, values, cuts)


def test_only_what_may_be_a_beginning_is_held_back() -> None:
    assert secret.uncut(b"a line without end", [b"secret"]) == b"a line without end"
    assert secret.uncut(b"a line: se", [b"secret"]) == b"a line: "
    assert secret.uncut(b"", [b"secret"]) == b""
    assert secret.uncut(b"anything", []) == b"anything"


def test_a_secret_comes_from_the_variable_that_its_name_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert secret.variable("db-password.1") == "PORTAFLOW_SECRET_DB_PASSWORD_1"
    monkeypatch.setenv("PORTAFLOW_SECRET_A", "value")
    monkeypatch.setenv("PORTAFLOW_SECRET_EMPTY", "")
    names = {"X": "a", "Y": "empty"}
    assert secret.resolve(names) == {"X": "value", "Y": ""}
    assert secret.known({**names, "Z": "unknown"}) == [b"value"]  # an empty one hides nothing


def test_a_missing_secret_is_denied_without_telling_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_A", "value")
    with pytest.raises(DeniedError, match="PORTAFLOW_SECRET_B") as caught:
        secret.resolve({"X": "a", "Y": "b"})
    assert "value" not in str(caught.value)
