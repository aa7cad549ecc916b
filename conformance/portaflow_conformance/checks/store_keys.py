"""L1, store: a key is what it says, or it is refused; it is never another key."""

from __future__ import annotations

import unicodedata
from typing import Any

from portaflow.backend import Capability
from portaflow.errors import BackendError

from ..subject import Subject, expect

_REFUSED = (OSError, ValueError, BackendError)


def key_reserved_chars(subject: Subject) -> None:
    """Characters that URLs, shells and globs know are characters of a key."""
    names = [f"a{c}b" for c in " +&?#='\"[]*!~@$^()|;,<>{}:"]
    _apart(subject, [*names, " leading", "two  spaces", "k=v", "part=1"])


def key_percent_literal(subject: Subject) -> None:
    """A percent sign stands for itself: nothing is decoded, nothing encoded twice."""
    _apart(subject, ["a%20b", "a b", "a%2Fb", "100%", "%", "a%25b", "%zz"])


def key_unicode(subject: Subject) -> None:
    """Every script is kept, and two spellings of one letter are two keys."""
    letter = "é"
    names = [unicodedata.normalize(form, letter) for form in ("NFC", "NFD")]
    _apart(subject, [*names, "日本語", "emoji-🚀", "ß", "ss", "straße"])


def key_length_limit(subject: Subject) -> None:
    """A long key is kept whole; one that is too long is refused, not cut."""
    long = "/".join(["x" * 90] * 7)
    _apart(subject, [long, long + "y"])
    fs, prefix = subject.fs, subject.prefix()
    too_long = "/".join(["z" * 200] * 40)
    try:
        fs.pipe_file(f"{prefix}/{too_long}", b"x")
    except _REFUSED:
        expect(list(fs.find(prefix)) == [], "a key that was refused has left something")
        return
    expect(fs.exists(f"{prefix}/{too_long}"), "a key that is too long is not kept as it is")


def key_slashes_dots(subject: Subject) -> None:
    """`a//b`, `a/./b` and `a/../b` are keys of their own or refused; nothing is resolved."""
    fs = subject.fs
    for odd, plain in (("a//b", "a/b"), ("a/./b", "a/b"), ("a/../b", "b"), ("/b", "b")):
        prefix = subject.prefix()
        fs.pipe_file(f"{prefix}/{plain}", b"plain")
        _own_or_refused(fs, f"{prefix}/{odd}", f"{prefix}/{plain}")


def key_trailing_slash(subject: Subject) -> None:
    """`a/` is a key of its own or refused; it is not `a`."""
    fs, prefix = subject.fs, subject.prefix()
    fs.pipe_file(f"{prefix}/a", b"plain")
    _own_or_refused(fs, f"{prefix}/a/", f"{prefix}/a")


def copy_special_key(subject: Subject) -> None:
    """A copy finds the keys that a request has to encode."""
    fs, prefix = subject.fs, subject.prefix()
    for name in ("a b+c", "100%", "é?#", "k=v&x"):
        fs.pipe_file(f"{prefix}/{name}", name.encode())
        fs.cp_file(f"{prefix}/{name}", f"{prefix}/copy of {name}")
        seen = fs.cat_file(f"{prefix}/copy of {name}")
        expect(seen == name.encode(), f"the copy of {name!r} is {seen!r}")


def key_and_prefix_coexist(subject: Subject) -> None:
    """`a` and `a/b` are both objects; where they cannot be, the second is refused."""
    fs = subject.fs
    for first, second in (("a", "a/b"), ("a/b", "a")):
        prefix = subject.prefix()
        fs.pipe_file(f"{prefix}/{first}", first.encode())
        with subject.declared("store", Capability.KEY_AND_PREFIX):
            fs.pipe_file(f"{prefix}/{second}", second.encode())
            _reads(fs, prefix, [first, second])
            expect(len(fs.find(prefix)) == 2, f"'a' and 'a/b' are listed as {fs.find(prefix)}")
        _reads(fs, prefix, [first])


def key_case_sensitive(subject: Subject) -> None:
    """`Key` and `key` are two objects."""
    with subject.declared("store", Capability.CASE_SENSITIVE, silently=True):
        _apart(subject, ["Key", "key", "KEY"])


# -- parts


def _apart(subject: Subject, names: list[str]) -> None:
    """Write each key, then find all of them with their own bytes, by name and in a list."""
    fs, prefix = subject.fs, subject.prefix()
    for name in names:
        fs.pipe_file(f"{prefix}/{name}", name.encode())
    _reads(fs, prefix, names)
    listed = [str(n) for n in fs.find(prefix)]
    lost = [name for name in names if not any(n.endswith(f"/{name}") for n in listed)]
    expect(not lost, f"not listed as they were written: {lost}")
    expect(len(listed) == len(names), f"{len(names)} keys are listed as {len(listed)}")
    for path, name in zip(sorted(listed), sorted(names), strict=True):
        seen = fs.cat_file(path)
        expect(seen == name.encode(), f"the listed path {path!r} reads as {seen!r}")
    for name in names:
        fs.rm_file(f"{prefix}/{name}")
    expect(list(fs.find(prefix)) == [], f"after all were removed there is {fs.find(prefix)[:3]}")


def _reads(fs: Any, prefix: str, names: list[str]) -> None:
    for name in names:
        try:
            seen = fs.cat_file(f"{prefix}/{name}")
        except OSError as error:
            raise AssertionError(f"{name!r} was written and is not there: {error}") from error
        expect(seen == name.encode(), f"{name!r} was written with its name, and reads {seen!r}")


def _own_or_refused(fs: Any, odd: str, plain: str) -> None:
    """Write `odd` beside `plain`, which holds b"plain"."""
    try:
        fs.pipe_file(odd, b"odd")
    except _REFUSED:
        return
    finally:
        seen = fs.cat_file(plain)
        expect(seen == b"plain", f"writing {odd[-8:]!r} has changed {plain[-8:]!r} to {seen!r}")
    expect(fs.cat_file(odd) == b"odd", f"{odd[-8:]!r} was written and is not read")
