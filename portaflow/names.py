"""Names are identity: what a thing is called follows from what it is for, on every machine."""

from __future__ import annotations

import hashlib
import re


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def resource_name(pipeline: str, run: str, kind: str, subject: str, attempt: int = 1) -> str:
    """Return the name of a remote thing: at most 40 of [a-z0-9-], begins with a letter.

    Equal parts give an equal name from any machine; other parts another one (48 bits).
    """
    parts = (pipeline, run, kind, subject, str(attempt))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    slug = f"{_slug(pipeline)[:10].strip('-')}-{_slug(subject)[:10].strip('-')}".strip("-")
    return f"pf-{slug}-{digest}-{attempt}" if slug else f"pf-{digest}-{attempt}"


def owner_label(pipeline: str, run: str) -> str:
    """Return the owner of everything a run starts: label-safe, at most 40 characters."""
    digest = hashlib.sha256(f"{pipeline}\0{run}".encode()).hexdigest()[:12]
    return f"pf-{_slug(pipeline)[:24].strip('-')}-{digest}".replace("--", "-")


def key_part(name: str) -> str:
    """Return `name` as one part of a key that every store and every engine reads alike."""
    safe = re.sub(r"[^A-Za-z0-9._=-]", "-", name)
    if safe == name and len(name) <= 80 and not name.startswith((".", "_")):
        return name
    return f"{safe[:60].lstrip('._-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
