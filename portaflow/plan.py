"""A plan: all that a run will do, with the exact requests. Data only; planner.py makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import JsonValue

from .backend import Driver, Fit, Request, Spec
from .cost import Cost

ActionKind = Literal["cluster", "job", "container", "call", "transfer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution. `params` take the place of the target's and the pipeline's."""

    id: str
    logical_date: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    params: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine that a plan refers to: where it is and what is in it."""

    path: str
    name: str  # the last part of its key
    digest: str  # sha256 of the content
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Image:
    """What an image name means here: a reference, and the folder it is built from if known."""

    reference: str
    context: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Local:
    """All that a plan must know of local files.

    `files`: by path as the pipeline says it, or by `source_key`; `images`: by `image_key`.
    """

    files: Mapping[str, LocalFile] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)


def source_key(name: str) -> str:
    """What the file of a source is known by: its path may be relative to another folder."""
    return f"source {name}"


def image_key(image: str, place: str) -> str:
    """What an image is known by: each place has references of its own."""
    return f"{image} on {place}" if place else image


@dataclass(frozen=True, slots=True)
class Staged:
    """A local file that is copied to `uri` before anything starts, unless it is there.

    `content`: of a file that a backend brings, which is nowhere on this machine.
    """

    uri: str
    file: LocalFile
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpec(Spec):
    """A Python function to call: "module:name" or "file.py:name"."""

    function: str
    kwargs: Mapping[str, JsonValue]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec(Spec):
    """Outputs to copy to another store: output -> the URI that has it, and where it goes."""

    home: str  # URI under which the task that wrote them did
    copies: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Start one thing and wait until it counts as done, or stop what another one started.

    `needs` are the actions that must have ended first. `name` and `request` are those of
    the first attempt; a later one differs from it in the name alone.
    """

    id: str
    verb: Literal["start", "attach", "stop"]
    kind: ActionKind
    subject: str  # the task's id or the cluster's name
    place: str = ""  # the target that does it; "" is the plan's own
    backend: str = ""
    name: str = ""
    request: Request | None = None
    spec: Spec | None = None
    parent: str = ""  # the action whose handle `start` receives
    undoes: str = ""  # for stop: the action whose thing to stop
    needs: frozenset[str] = frozenset()
    timeout: float = 86400.0  # seconds
    retries: int = 0
    retry_delay: float = 10.0  # seconds
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> URI
    outputs: Mapping[str, str] = field(default_factory=dict)  # name -> URI
    home: str = ""  # URI under which the task writes all it writes

    @property
    def inside(self) -> bool:
        """Whether the engine does it itself, so that it ends when the engine does."""
        return self.kind in ("call", "transfer")


@dataclass(frozen=True, slots=True)
class Note:
    """What a backend does with a portable field, unless it simply honours it."""

    action: str
    field: str
    fit: Fit


@dataclass(frozen=True)
class Plan:
    """All that will be done, in an order in which it can be done."""

    pipeline: str
    target: str
    run: str
    owner: str
    home: str  # URI under which everything of this run is kept
    actions: tuple[Action, ...]
    staged: tuple[Staged, ...] = ()
    notes: tuple[Note, ...] = ()
    costs: tuple[Cost, ...] = ()
    max_parallel: int = 16

    @cached_property
    def by_id(self) -> Mapping[str, Action]:
        return {a.id: a for a in self.actions}

    def to_json(self) -> dict[str, Any]:
        """The plan as `portaflow plan --json` prints it."""
        return {
            "pipeline": self.pipeline,
            "target": self.target,
            "run": self.run,
            "owner": self.owner,
            "home": self.home,
            "stage": [
                {"uri": s.uri, "sha256": s.file.digest, "bytes": s.file.size} for s in self.staged
            ],
            "actions": [_action_json(a) for a in self.actions],
            "costs": [c.to_json() for c in self.costs],
            "notes": [
                {
                    "action": n.action,
                    "field": n.field,
                    "verdict": n.fit.verdict.value,
                    "reason": n.fit.reason,
                }
                for n in self.notes
            ],
        }


def _action_json(action: Action) -> dict[str, Any]:
    shown = (
        *("verb", "kind", "place", "backend", "name", "parent", "undoes"),
        *("inputs", "outputs", "request"),
    )
    body = {key: value for key in shown if (value := getattr(action, key))}
    return {"id": action.id, "needs": sorted(action.needs), **body}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, mappings key by key."""
    both = dict(below)
    for key, value in above.items():
        mine = both.get(key)
        both[key] = (
            merged(mine, value)
            if isinstance(mine, Mapping) and isinstance(value, Mapping)
            else value
        )
    return both


def native_request(driver: Driver[Any], name: str, spec: Spec, parent: str) -> Request:
    """The provider's request for one attempt, the user's overrides merged in."""
    request = driver.request(name, spec, parent)
    return merged(request, spec.overrides) if spec.overrides else request


def transfer_request(name: str, spec: TransferSpec) -> Request:
    """What the engine's own driver of transfers is sent."""
    copies = {o: {"from": source, "to": copy} for o, (source, copy) in spec.copies.items()}
    return {"name": name, "home": spec.home, "copies": copies}


def call_request(name: str, spec: Spec) -> Request:
    """What the engine's own driver of calls is sent."""
    own = {f.name for f in fields(CallSpec)} - {"overrides"}
    return {"name": name, **{key: getattr(spec, key) for key in sorted(own)}}
