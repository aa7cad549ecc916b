"""Names are identity: what a thing is called follows from what it is for, on every machine."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 40
_PLAIN = re.compile(r"[A-Za-z0-9=-][A-Za-z0-9._=-]{0,79}")
_CHANGED = re.compile(r"-[0-9a-f]{10}$")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def resource_name(pipeline: str, home: str, kind: str, subject: str, attempt: int = 1) -> str:
    """Return the name of a remote thing: at most 40 of [a-z0-9-], begins with a letter.

    `home` is the run's URI, and so the run: two stores may hold runs of one id, and what they
    start may meet in one account. Equal parts give an equal name from any machine; other parts
    another one (48 bits).
    """
    parts = (pipeline, home, kind, subject, str(attempt))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    end = f"{digest}-{attempt}"
    half = (_LONGEST - len(f"pf---{end}")) // 2
    words = ("pf", _slug(pipeline)[:half].strip("-"), _slug(subject)[:half].strip("-"), end)
    return "-".join(filter(None, words))


def owner_label(pipeline: str, home: str) -> str:
    """Return the owner of everything that the run at `home` starts: label-safe, at most 40."""
    digest = hashlib.sha256(f"{pipeline}\0{home}".encode()).hexdigest()[:12]
    return "-".join(filter(None, ("pf", _slug(pipeline)[:24].strip("-"), digest)))


def key_part(name: str) -> str:
    """Return `name` as one part of a key that every store and every engine reads alike.

    Other names give another part: what looks like a name that was changed is changed too.
    """
    if _PLAIN.fullmatch(name) and not _CHANGED.search(name):
        return name
    safe = re.sub(r"[^A-Za-z0-9._=-]", "-", name)[:60].lstrip("._=-")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{safe or 'x'}-{digest}"


def file_part(name: str) -> str:
    """The same for a file, whose suffix stays: by that, Spark knows Python from a jar."""
    stem, _, suffix = name.rpartition(".")
    plain = stem and re.fullmatch(r"[A-Za-z0-9]{1,9}", suffix) and key_part(name) != name
    return f"{key_part(stem)}.{suffix}" if plain else key_part(name)
