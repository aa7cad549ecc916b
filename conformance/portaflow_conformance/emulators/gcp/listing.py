"""What a list of objects shows of a bucket: one page of it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .items import Bucket, Item, Listing, invalid


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: names with `prefix` that follow `after`, at most `most` entries.

    `first` and `end` bound the names, the first within and the second without. With a
    delimiter, names that go on after one are told as a prefix; `trailing` tells an object that
    ends with it as well.
    """

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    most: int = 1000
    first: str = ""
    end: str = ""
    glob: str = ""
    trailing: bool = False


def page(holder: Bucket, wanted: Wanted, now: float) -> Listing:
    """The entries, and where the next page begins."""
    order, prefix, after = holder.order, wanted.prefix, wanted.after
    shown = re.compile(_regex(wanted.glob)).fullmatch if wanted.glob else None
    items: list[Item] = []
    prefixes: list[str] = []
    at = bisect.bisect_left(order, max(prefix, wanted.first))
    if after:
        at = max(at, bisect.bisect_right(order, after))
    last = after
    while at < len(order) and order[at].startswith(prefix):
        name = order[at]
        item = holder.items[name]
        if wanted.end and name >= wanted.end:
            break
        if item.hidden > now or (shown and not shown(name)):
            at += 1
            continue
        cut = name.find(wanted.delimiter, len(prefix)) if wanted.delimiter else -1
        group = name[: cut + len(wanted.delimiter)] if cut >= 0 else ""
        if group and after.startswith(group):  # it was in the page before
            at = bisect.bisect_left(order, _beyond(group), at)
            continue
        if len(items) + len(prefixes) >= wanted.most:
            return Listing(items, prefixes, last)
        if group:
            prefixes.append(group)
            if wanted.trailing and name == group:
                items.append(item)
            at = bisect.bisect_left(order, _beyond(group), at)
            last = order[at - 1]
        else:
            items.append(item)
            last = name
            at += 1
    return Listing(items, prefixes, "")


def _beyond(prefix: str) -> str:
    """The least string that is greater than all that begin with `prefix`."""
    return (
        prefix[:-1] + chr(ord(prefix[-1]) + 1)
        if ord(prefix[-1]) < 0x10FFFF
        else prefix + "\U0010ffff"
    )


def _regex(glob: str) -> str:
    """A glob as GCS has it: `*` stays within a folder, `**` does not, `{a,b}` is either."""
    return "".join(_pieces(glob))


def _pieces(glob: str) -> Iterator[str]:
    words = re.compile(r"\*\*/?|\*|\?|\[[^\]]+\]|\{[^}]*\}|.", re.DOTALL)
    for word in words.findall(glob):
        if word == "**/":
            yield "(?:.*/)?"
        elif word == "**":
            yield ".*"
        elif word == "*":
            yield "[^/]*"
        elif word == "?":
            yield "[^/]"
        elif word.startswith("[") and len(word) > 1:
            inside = word[1:-1].replace("\\", r"\\")
            yield f"[{'^' + inside[1:] if inside[0] == '!' else inside}]"
        elif word.startswith("{") and len(word) > 1:
            yield f"(?:{'|'.join(map(_regex, word[1:-1].split(',')))})"
        elif word in "[{":
            raise invalid(f"Invalid matchGlob: {glob!r}")
        else:
            yield re.escape(word)
