"""config, backends, doctor, reap: commands about where runs take place."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portaflow import text
from portaflow.backend import ContainerSpec, Finding
from portaflow.errors import LeakError, PortaflowError
from portaflow.hookspecs import BackendKind
from portaflow.plugins import Backends, Broken, Offer, Registry, installed
from portaflow.session import Session
from portaflow.target import Settings, Target, find_file, settings

from .options import as_json, print_json, with_open, with_session, with_target
from .table import TONES, show_table
from .text import cut, printable, width

if TYPE_CHECKING:
    from portaflow.plan import Plan

_KINDS: tuple[BackendKind, ...] = ("store", "compute", "container")
_STRANGE = (Exception, SystemExit)
"""What a stranger's code may raise when it is imported or asked; all of it is reported."""

# -- config

_SECRET = re.compile(r"passw|token|secret|credential|(api|access|private|account)_?key", re.I)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@click.command()
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@as_json
@with_target
@click.pass_context
def config(ctx: click.Context, target: Target, origin: bool, as_json: bool) -> None:
    """Show a target's settings as they are once all layers are merged.

    Strongest first: --set, the environment, the target, the targets it extends, the
    defaults. What looks like a secret is never shown.
    """
    given = ctx.params
    file = given["config"] or find_file(Path.cwd())
    _, merged = settings(given["target_name"], file=file, sets=given["sets"])
    _add_defaults(merged, target)
    rows = [(path, _masked(path, value)) for path, value in _leaves(merged.values, "")]
    if as_json:
        print_json(
            {
                "target": target.name,
                "file": str(file) if file else None,
                "settings": {
                    path: {"value": value, "origin": merged.origins.get(path, "default")}
                    if origin
                    else value
                    for path, value in rows
                },
            }
        )
        return
    click.echo(f"target {target.name}{f' of {file}' if file else ''}")
    lines = [
        (path, repr(value), *((merged.origins.get(path, "default"),) if origin else ()))
        for path, value in rows
    ]
    show_table(("setting", "value", *(("origin",) if origin else ())), lines)


def _add_defaults(merged: Settings, target: Target) -> None:
    """Lay what the target and its backends take by default below what was set."""
    for kind in _KINDS:
        if binding := getattr(target, kind):
            try:
                fields = dataclasses.fields(installed().load(kind, binding.backend).Config)
            except _STRANGE:  # what is wrong with it, `backends` and `doctor` say
                continue
            for field in fields:
                if field.default is not dataclasses.MISSING:
                    merged.values[kind].setdefault(field.name, _plain(field.default))
    merged.values.setdefault("max_parallel", target.max_parallel)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | None) else str(value)


def _leaves(values: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _masked(path: str, value: Any) -> Any:
    *above, last = path.split(".")
    if _SECRET.search(last) and not (above and above[-1] == "secrets"):  # those are references
        return "(not shown)"
    return _USERINFO.sub("(not shown)", value) if isinstance(value, str) else value


# -- backends


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Show reasons and tracebacks, too.")
@as_json
def backends(verbose: bool, as_json: bool) -> None:
    """List the backends that plugins offer, and the plugins that are broken."""
    registry = installed()
    offers = [_offer(registry, offer) for offer in registry]
    broken = [_broken(b) for b in registry.broken]
    if as_json:
        print_json({"backends": offers, "broken": broken})
        return
    lines = [
        (
            o["name"],
            o["kind"],
            o["distribution"],
            o["interface"],
            ("cannot be used", TONES["bad"]) if o["error"] else " ".join(_has(o)),
        )
        for o in offers
    ]
    show_table(("backend", "kind", "distribution", "interface", "capabilities"), lines)
    for o in offers:
        if o["error"]:
            click.echo(f"\n{o['name']}: {printable(o['error'])}")
        elif verbose:
            for capability, support in o["capabilities"].items():
                if not support["supported"]:
                    reason = support["reason"] or support["issue"] or "no reason given"
                    click.echo(f"{o['name']}: no {capability}: {printable(reason)}")
    for b in broken:
        click.echo(
            f"\n{click.style('broken', fg='red')}: plugin {b['plugin']!r} of distribution "
            f"{b['distribution']}: {printable(b['error'])}"
        )
        if verbose:
            click.echo(printable(b["traceback"]).rstrip())
    if broken and not verbose:
        click.echo("\n--verbose shows tracebacks")


def _offer(registry: Registry, offer: Offer) -> dict[str, Any]:
    spec = offer.spec
    body: dict[str, Any] = {
        "name": spec.name,
        "kind": spec.kind,
        "distribution": offer.distribution,
        "interface": spec.api_version,
        "capabilities": {},
        "error": "",
    }
    try:
        capabilities = registry.load(spec.kind, spec.name).capabilities
        body["capabilities"] = {
            c.value: {"supported": s.supported, "reason": s.reason, "issue": s.issue}
            for c, s in capabilities.items()
        }
    except _STRANGE as error:
        body["error"] = _said(error)
    return body


def _has(offer: Mapping[str, Any]) -> list[str]:
    return [name for name, support in offer["capabilities"].items() if support["supported"]]


def _broken(broken: Broken) -> dict[str, str]:
    return dataclasses.asdict(broken)


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, PortaflowError) else f"{type(error).__name__}: {error}"


# -- doctor


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@as_json
@with_open
@click.pass_context
def doctor(
    ctx: click.Context, opened: Callable[[], Target], path: Path | None, as_json: bool
) -> None:
    """Check what a target needs, and with PATH also what that pipeline needs of it.

    Costs nothing. Exit codes: 0 all is well, 1 something is wrong.
    """
    findings = [(where, f) for where, f in _findings(opened, path)]
    bad = sum(not f.ok for _, f in findings)
    if as_json:
        body = [{"where": where, **dataclasses.asdict(f)} for where, f in findings]
        print_json({"ok": not bad, "findings": body})
    else:
        for where, finding in findings:
            _show_finding(where, finding)
        click.echo()
        verdict = f"{bad} of {len(findings)} checks failed" if bad else "all is well"
        click.echo(click.style(verdict, fg="red" if bad else "green", bold=True))
    ctx.exit(1 if bad else 0)


def _show_finding(where: str, finding: Finding) -> None:
    mark = click.style("✓", fg="green") if finding.ok else click.style("✗", fg="red")
    detail = f": {printable(finding.detail)}" if finding.detail else ""
    click.echo(f"{mark} {where}: {printable(finding.what)}{detail}")
    if finding.fix and not finding.ok:
        click.echo(f"    fix: {printable(finding.fix)}")


def _findings(opened: Callable[[], Target], path: Path | None) -> Iterator[tuple[str, Finding]]:
    version = ".".join(map(str, sys.version_info[:3]))
    python = Finding(
        what="Python", ok=sys.version_info >= (3, 11), detail=version, fix="install 3.11 or later"
    )
    yield "portaflow", python
    for broken in installed().broken:
        yield "plugins", Finding(
            what=f"plugin {broken.plugin!r}", ok=False, detail=broken.error,
            fix=f"reinstall or remove the distribution {broken.distribution!r}; "
            "portaflow backends --verbose shows the traceback",
        )  # fmt: skip
    try:
        target = opened()
    except PortaflowError as error:
        yield "target", Finding(what="settings", ok=False, detail=str(error), fix="correct them")
        return
    yield "target", Finding(what=f"settings of {target.name!r}", ok=True)
    session = Session(target)
    for place in ("", *target.others):
        for kind in _KINDS:
            if binding := getattr(target.at(place), kind):
                where = " ".join(filter(None, (place, kind, binding.backend)))
                for finding in _checked(session.backends.at(place), kind):
                    yield where, finding
    if path is not None:
        yield from _pipeline(session, path)


def _checked(backends: Backends, kind: BackendKind) -> Iterator[Finding]:
    """What a backend finds; that it cannot be opened or looked at is a finding, too."""
    what, fix = "can be opened", "portaflow backends --verbose tells more"
    try:
        backend = getattr(backends, kind)
        what, fix = "check", "report it to the plugin's authors"
        found = False
        for finding in backend.check():
            found = True
            yield finding
        if not found:
            yield Finding(what="nothing to check", ok=True)
    except _STRANGE as error:
        yield Finding(what=what, ok=False, detail=_said(error), fix=fix)


def _pipeline(session: Session, path: Path) -> Iterator[tuple[str, Finding]]:
    from portaflow.load import load
    from portaflow.plan import Run

    where = f"pipeline {path}"
    try:
        planned = session.plan(load(path), Run(id="doctor"))
    except _STRANGE as error:
        yield where, Finding(
            what="can run here", ok=False, detail=_said(error),
            fix="change the pipeline, or choose another target",
        )  # fmt: skip
        return
    tasks = sum(1 for a in planned.actions if a.kind != "cluster")
    yield where, Finding(what="can run here", ok=True, detail=f"{tasks} tasks")
    for note in planned.notes:
        detail = f"{note.fit.verdict.value}: {note.fit.reason}"
        yield where, Finding(what=f"{note.action}.{note.field}", ok=True, detail=detail)
    yield from _images(session, planned)


def _images(session: Session, planned: Plan) -> Iterator[tuple[str, Finding]]:
    """What can be told, at no cost, of each image that the pipeline runs."""
    wanted = {
        (a.place, a.backend, a.spec.image): None
        for a in planned.actions
        if isinstance(a.spec, ContainerSpec) and a.spec.image
    }
    for place, backend, image in wanted:
        try:
            finding = session.backends.at(place).container.check_image(image)
        except _STRANGE as error:
            fix = "portaflow backends --verbose tells more"
            finding = Finding(what=f"image {image}", ok=False, detail=_said(error), fix=fix)
        if finding:
            yield " ".join(filter(None, (place, "container", backend))), finding


# -- reap


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
@click.option(
    "--unknown", is_flag=True,
    help="Also remove what no run of this store owns; it may be another store's.",
)  # fmt: skip
@as_json
@with_session
@click.pass_context
def reap(ctx: click.Context, session: Session, yes: bool, unknown: bool, as_json: bool) -> None:
    """List what is alive in a target, then remove what no living engine will end.

    Never touches a run whose engine is alive. Exit codes: 0 nothing is left over,
    3 something is and may cost money.
    """
    from portaflow import reap as reaping

    found = reaping.find(session)
    over = [f for f in found if reaping.removable(f, unknown)]
    if not as_json:
        _show_found(session.target, found)
    agreed = bool(over) and (yes or (not as_json and _asked(len(over))))
    removed: list[reaping.Found] = []
    leak = None
    if agreed:
        try:
            reaping.remove(session, over, lambda f: _removed(removed, f, as_json))
        except LeakError as error:
            leak = error
    left = [f for f in found if reaping.removable(f, True) and f not in removed]
    if as_json:
        body = {"removed": [f.to_json() for f in removed], "left": [f.to_json() for f in left]}
        print_json({"found": [f.to_json() for f in found], **body})
    elif not agreed and over:
        click.echo(f"{len(over)} left over; --yes removes them")
    if left and not unknown and not as_json and any(f.engine == "unknown" for f in left):
        click.echo("what no run of this store owns is left alone; --unknown removes it, too")
    if leak:
        raise leak
    ctx.exit(3 if left else 0)


def _asked(count: int) -> bool:
    return sys.stdin.isatty() and click.confirm(f"remove {count}?", err=True)


def _removed(removed: list[Any], found: Any, quiet: bool) -> None:
    removed.append(found)
    if not quiet:
        click.echo(f"removed {found.kind} {found.handle.name}")


def _show_found(target: Target, found: list[Any]) -> None:
    if not found:
        click.echo(f"nothing of portaflow is alive in target {target.name!r}")
        return
    tones = {"alive": "busy", "ended": "bad", "dead": "bad", "unknown": "warn"}
    lines = [
        (
            f.kind,
            f.handle.name,
            cut(f"{f.pipeline}/{f.run}", max(width() - 70, 24)) if f.run else "-",
            text.duration(time.time() - f.since) if f.since else "",
            (f.engine, TONES[tones[f.engine]]),
            "" if f.handle.id == f.handle.name else f.handle.id,
        )
        for f in found
    ]
    show_table(("kind", "name", "run", "age", "engine", "id"), lines, "age")
