"""A run's report: one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from . import __version__, text
from .backend import Handle
from .data import contents, store_errors
from .errors import PortaflowError
from .history import Attempt, attempts, standing, word
from .layout import layout
from .plan import Action
from .session import Past, RunRef, Session
from .state import Phase
from .target import Target

_TAIL = 8 * 1024  # bytes of log that are embedded for a failed task
_CHUNKS = 64  # read at most to get to that tail
_TAILS = 30  # failed tasks with a tail
_DRAWN = 600  # nodes; a larger graph is no picture any more
_SHOWN = 4000  # characters of a value or a reason

_TONES: Mapping[str, str] = {
    "done": "good", "succeeded": "good", "gone": "good",
    "failed": "bad", "leaked": "bad", "died": "bad",
    "stopped": "warn", "stopping": "warn", "interrupted": "warn",
    "running": "busy", "starting": "busy", "committing": "busy", "ready": "busy",
}  # fmt: skip
_MARKS: Mapping[str, str] = {"good": "✓", "bad": "✕", "warn": "■", "busy": "●", "calm": "○"}


@dataclass
class Found:
    """What the store and the drivers tell of a run beside its journal."""

    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by task
    tails: Mapping[str, str] = field(default_factory=dict)  # of logs, by task
    alive: bool = False
    closed: bool = False


def write_report(session: Session, ref: RunRef) -> str:
    """Write a run's report beside its journal, where any machine sees it; return the URI."""
    uri = f"{ref.home}/_report.html"
    page = report(session, ref)
    with store_errors(uri):
        session.fs.pipe_file(uri, page.encode("utf-8", "replace"))
    return uri


def report(session: Session, ref: RunRef) -> str:
    """Return a run's report."""
    past = session.recorded(ref)
    return render(past, look(session, past), session.target, time.time())


def look(session: Session, past: Past) -> Found:
    """Read manifests, the engine's sign of life, and the ends of the logs that matter."""
    lease = past.journal.lease() or {}
    done = [a for a in past.plan.actions if a.home and past.state[a.id].phase is Phase.DONE]
    blobs = contents(session.fs_at, [f"{a.home}/_manifest.json" for a in done])
    manifests = {a.id: json.loads(blob) for a, blob in zip(done, blobs, strict=True) if blob}
    tails = {}
    drivers = session.drivers(past.plan, past.project.folder)
    for action in past.state.failed()[:_TAILS]:
        if handle := past.state[action.id].handle:
            try:
                tails[action.id] = _tail(drivers(action), handle)
            except (PortaflowError, NotImplementedError) as error:
                tails[action.id] = f"(the log cannot be read: {error})"
    return Found(manifests, tails, past.journal.alive(), bool(lease.get("closed")))


def _tail(driver: Any, handle: Handle) -> str:
    kept, cursor, cut = b"", "", False
    for _ in range(_CHUNKS):
        chunk = driver.logs(handle, cursor)
        kept += chunk.data
        cut = cut or len(kept) > _TAIL
        kept = kept[-_TAIL:]
        if chunk.end or chunk.cursor == cursor:
            break
        cursor = chunk.cursor
    lines = kept.decode(errors="replace")
    return "…" + lines.partition("\n")[2] if cut else lines


def render(past: Past, found: Found, target: Target, now: float) -> str:
    """Return the page. Pure."""
    tried = attempts(past.plan, past.events)
    begin = past.events[0].time if past.events else now
    end = now if found.alive else past.events[-1].time if past.events else now
    name = standing(past.state, found.alive, found.closed)
    tasks = [_task(past, found, a, tried[a.id], end) for a in _tasks(past)]
    clusters = [a for a in past.plan.actions if a.kind == "cluster" and a.verb != "stop"]
    page: str = _template().render(
        version=__version__,
        made=text.moment(now),
        run={
            "pipeline": past.plan.pipeline,
            "id": past.plan.run,
            "description": past.project.pipeline.description,
            "home": past.plan.home,
            "date": past.header.get("logical_date", ""),
            "word": name,
            "tone": tone(name),
            "mark": _MARKS[tone(name)],
            "started": text.moment(begin),
            "took": text.duration(end - begin),
            "failed": name in ("failed", "died", "stopped", "interrupted"),
        },
        params=[(k, _json(v)) for k, v in _params(past, target).items()],
        target=target,
        bindings=[
            (kind, binding.backend)
            for kind in ("store", "compute", "container")
            if (binding := getattr(target, kind))
        ],
        tasks=tasks,
        bytes=text.size(sum(t["bytes"] for t in tasks)),
        files=sum(t["files"] for t in tasks),
        tries=sum(len(t["attempts"]) for t in tasks),
        failures=[t for t in tasks if t["word"] in ("failed", "leaked")] + _bad(past, clusters),
        retried=[t for t in tasks if len(t["attempts"]) > 1],
        graph=_graph(past, tasks),
        timeline=_timeline(past, [*clusters, *_tasks(past)], tried, begin, end),
        notes=past.plan.notes,
    )
    return page


def _tasks(past: Past) -> list[Action]:
    return [a for a in past.plan.actions if a.kind != "cluster"]


def _params(past: Past, target: Target) -> dict[str, Any]:
    defaults = dict(past.project.pipeline.params)
    given = {k: v for k, v in target.params.items() if k in defaults}
    return defaults | given | dict(past.header["params"])


def _bad(past: Past, clusters: Iterable[Action]) -> list[dict[str, Any]]:
    rows = []
    for action in clusters:
        name = word(past.state, action)
        if name in ("failed", "leaked"):
            stop = next((a.id for a in past.plan.actions if a.undoes == action.id), action.id)
            mine = past.state[stop if name == "leaked" else action.id]
            rows.append(
                {"id": action.id, "word": name, "code": mine.exit_code, "tail": ""}
                | {"reason": _short(mine.reason), "cause": mine.cause.value if mine.cause else ""}
            )
    return rows


def _task(
    past: Past, found: Found, action: Action, tried: list[Attempt], end: float
) -> dict[str, Any]:
    mine, name = past.state[action.id], word(past.state, action)
    manifest = found.manifests.get(action.id, {})
    outputs = [
        {"name": n, "uri": o["uri"], "files": len(o["files"]), "size": text.size(o["bytes"])}
        for n, o in manifest.get("outputs", {}).items()
    ]
    cluster = past.plan.by_id.get(action.parent)
    return {
        "id": action.id,
        "kind": {"job": "spark", "call": "call"}.get(action.kind, action.kind),
        "cluster": cluster.subject if cluster else "",
        "backend": action.backend,
        "word": name,
        "tone": tone(name),
        "mark": _MARKS[tone(name)],
        "attempts": [_attempt(a, end) for a in tried],
        "started": text.moment(tried[0].began)[11:] if tried else "",
        "took": text.duration(tried[-1].seconds(end)) if tried else "",
        "code": mine.exit_code,
        "reason": _short(mine.reason),
        "cause": mine.cause.value if mine.cause else "",
        "value": None if mine.value is None else _short(_json(mine.value)),
        "outputs": outputs,
        "bytes": sum(o["bytes"] for o in manifest.get("outputs", {}).values()),
        "files": sum(o["files"] for o in outputs),
        "tail": found.tails.get(action.id, ""),
        "log": _link(mine.handle.url) if mine.handle else "",
    }


def _attempt(attempt: Attempt, end: float) -> dict[str, Any]:
    outcome = attempt.outcome
    return {
        "number": attempt.number,
        "began": text.moment(attempt.began)[11:],
        "took": text.duration(attempt.seconds(end)),
        "outcome": _ended_as(attempt),
        "tone": "busy" if outcome is None else "good" if attempt.good else "bad",
        "code": attempt.exit_code,
        "reason": _short(attempt.reason),
        "cause": attempt.cause.value if attempt.cause else "",
        "log": _link(attempt.handle.url) if attempt.handle else "",
    }


def _ended_as(attempt: Attempt) -> str:
    if attempt.outcome is None:
        return "under way"
    return "failed, tried again" if attempt.outcome is Phase.WAITING else attempt.outcome.value


def _graph(past: Past, tasks: list[dict[str, Any]]) -> dict[str, Any] | None:
    if len(tasks) > _DRAWN:
        return None
    small = len(tasks) > 40
    box = (150.0, 26.0) if small else (188.0, 48.0)
    by_id = {t["id"]: t for t in tasks}
    upstream = {t["id"]: past.plan.by_id[t["id"]].needs & by_id.keys() for t in tasks}
    placed = layout(upstream, box, (56.0, 7.0) if small else (64.0, 18.0))
    return {
        "small": small,
        "width": placed.width,
        "height": placed.height,
        "box": box,
        "nodes": [by_id[id] | {"x": x, "y": y} for id, (x, y) in placed.nodes.items()],
        "edges": [
            {"path": path, "tone": by_id[a]["tone"]} for (a, _), path in placed.edges.items()
        ],
    }


def _timeline(
    past: Past,
    actions: Iterable[Action],
    tried: Mapping[str, list[Attempt]],
    begin: float,
    end: float,
) -> dict[str, Any]:
    span = max(end - begin, 0.001)

    def percent(at: float) -> float:
        return round(100 * min(max(at - begin, 0), span) / span, 3)

    rows = []
    for action in sorted((a for a in actions if tried[a.id]), key=lambda a: tried[a.id][0].began):
        bars = []
        for attempt in tried[action.id]:
            last = attempt.ended or end
            ready = min(attempt.running or last, last)
            kind = "cluster" if action.kind == "cluster" else "task"
            good = attempt.outcome is None or attempt.good
            bars.append(
                {
                    "left": percent(attempt.began),
                    "width": max(percent(last) - percent(attempt.began), 0.15),
                    "start": round(100 * (ready - attempt.began) / max(last - attempt.began, 1e-9)),
                    "tone": kind if good else "warn" if attempt.outcome is Phase.STOPPED else "bad",
                    "took": text.duration(attempt.seconds(end)),
                    "title": f"{action.subject}, attempt {attempt.number}: "
                    f"{text.duration(attempt.seconds(end))}, {_ended_as(attempt)}",
                }
            )
        took = text.duration((tried[action.id][-1].ended or end) - tried[action.id][0].began)
        name = action.subject
        rows.append(
            {"label": name, "cluster": action.kind == "cluster", "bars": bars, "took": took}
        )
    return {"rows": rows, "ticks": _ticks(span)}


def _ticks(span: float) -> list[dict[str, Any]]:
    steps = [a * 10**b for b in range(-3, 2) for a in (1, 2, 5)]
    steps += [60 * n for n in (1, 2, 5, 10, 20, 30)] + [3600 * n for n in (1, 2, 3, 6, 12)]
    steps += [86400.0 * n for n in (1, 2, 7, 30, 100)]
    step = next((s for s in sorted(steps) if span / s <= 7), span / 5)
    count = int(span / step) + 1

    def shown(seconds: float) -> str:
        return f"{seconds:g} s" if seconds < 60 else text.duration(seconds).replace(" 00 s", "")

    return [
        {"left": round(100 * n * step / span, 3), "text": shown(round(n * step, 3))}
        for n in range(count)
    ]


def tone(name: str) -> str:
    """How good or bad a state is: good, bad, warn, busy or calm."""
    return _TONES.get(name, "calm")


def _link(url: str) -> str:
    """A URL to follow, "" for one that a browser might run."""
    scheme, mark, _ = url.partition("://")
    return url if mark and scheme.lower() in ("http", "https", "file", "s3", "gs") else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=None)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("portaflow")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["style"] = Markup((here / "report.css").read_text("utf-8"))  # noqa: S704
    environment.filters["size"] = text.size
    environment.filters["cut"] = lambda s, n: s if len(s) <= n else s[: n - 1] + "…"
    return environment.from_string((here / "report.html.j2").read_text("utf-8"))
