"""The pytest plugin: options, one item per check and backend, the end of the session."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import collect_one_node

from portaflow import __version__
from portaflow.backend import API_VERSION
from portaflow.errors import PortaflowError
from portaflow.plugins import installed
from portaflow.target import find_file, load_target

from .checks import Function, implemented
from .elsewhere import OtherProcess
from .known import Known, read_known, wrong
from .manifest import CONTRACT, LEVELS, MANIFEST, Check
from .page import standing
from .report import EXIT, Outcome, Report, Result, capability_table, write
from .subject import NotRun, Options, Role, Subject

_ROLES: Mapping[str, tuple[Role, ...]] = {
    "plugin": ("store", "container", "compute"),
    "store": ("store",),
    "container": ("container",),
    "spark": ("compute",),
}


class Suite:
    """One session of the suite: what is checked, and what was found."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        path = Path(option.config) if option.config else find_file(Path.cwd())
        self.target = load_target(option.target, file=path)
        self.level = option.level
        self.known: list[Known] = (
            read_known(Path(option.known_failures)) if (option.known_failures) else []
        )
        self.rerun = option.rerun
        self.subject = Subject(
            self.target,
            installed(),
            OtherProcess(self.target),
            Options(
                image=option.image, secret=option.secret, shortest_ttl=int(option.shortest_ttl)
            ),
        )
        self.kind = _target_kind(self, option.target_kind)
        self.folder = Path(option.report) if option.report else None
        self.started = datetime.now(UTC)
        self.results: dict[tuple[str, str], Result] = {}
        self.items: list[CheckItem] = []

    def planned(self) -> list[dict[str, str]]:
        """Checks of other levels, and those that are not written yet. They count as nothing."""
        above = LEVELS[LEVELS.index(self.level) + 1 :]
        return [
            {"id": c.id, "level": c.level, "waits_for": c.planned or f"--level {c.level}"}
            for c in MANIFEST
            if c.planned or c.level in above
        ]

    def report(self) -> Report:
        """What was found; an item that has no result did not run."""
        results = [
            self.results.get((i.check.id, i.backend))
            or i.result("not run", 0.0, "the session ended before it, or left it out")
            for i in self.items
        ]
        return Report(
            contract=CONTRACT,
            portaflow=__version__,
            interface=API_VERSION,
            target=self.target.name,
            target_kind=self.kind,
            level=self.level,
            started=self.started.isoformat(timespec="seconds"),
            seconds=(datetime.now(UTC) - self.started).total_seconds(),
            backends=[_backend(self.subject, role) for role in self.subject.roles],
            results=results,
            planned=self.planned(),
            problems=wrong(self.known, results, self.started.date()),
        )


def _target_kind(suite: Suite, said: str | None) -> str:
    """A store of files is this machine's. Of any other target a person must say what it is."""
    local = suite.subject.here.store.url("").startswith("file:")
    if said is None and not local and suite.level != "L0":
        raise pytest.UsageError(
            "this target's store is not a folder: say --target-kind emulator, or real; "
            "what an emulator shows never counts as shown on the real thing"
        )
    if said == "real" and suite.level != "L0":
        raise pytest.UsageError(
            "a real target costs money: this version checks it with --level L0 only; "
            "use an emulator for L1"
        )
    return said or ("local" if local else "unknown")


def _backend(subject: Subject, role: Role) -> dict[str, Any]:
    binding, backend = subject.binding(role), subject.backend(role)
    assert binding
    offer = next(o for o in subject.registry if o.spec.name == binding.backend)
    return {
        "role": role,
        "name": binding.backend,
        "distribution": offer.distribution,
        "version": version(offer.distribution),
        "interface": backend.api_version,
        "capabilities": {
            c.value: {"supported": s.supported, "reason": s.reason, "issue": s.issue}
            for c, s in backend.capabilities.items()
        },
    }


# -- items


class CheckItem(pytest.Item):
    """One check of one backend."""

    def __init__(
        self, *, suite: Suite, check: Check, function: Function, role: Role | None, **more: Any
    ) -> None:
        super().__init__(**more)
        self.suite, self.check, self.function, self.role = suite, check, function, role
        binding = suite.subject.binding(role) if role else None
        self.backend = binding.backend if binding else ""

    def runtest(self) -> None:
        subject = self.suite.subject
        try:
            if self.check.area == "plugin":
                self.function(subject, self.role)
            else:
                self.function(subject)
        finally:
            subject.clean()

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """A finding is its sentence; what a backend raised is shown with where."""
        if excinfo.errisinstance(AssertionError):
            return f"{self.check.id} [{self.backend}]: {excinfo.value}"
        return super().repr_failure(excinfo, "short")

    def reportinfo(self) -> tuple[Path, None, str]:
        return Path(self.check.area), None, self.name

    def result(self, outcome: Outcome, seconds: float, message: str = "") -> Result:
        needs = self.check.needs
        return Result(
            id=self.check.id,
            area=self.check.area,
            backend=self.backend,
            level=self.check.level,
            since=self.check.since,
            laws=self.check.laws,
            capability=needs.value if needs else "",
            declared=bool(self.role and needs and self.suite.subject.supports(self.role, needs)),
            outcome=outcome,
            seconds=round(seconds, 3),
            message=message,
        )


class Area(pytest.Collector):
    """The checks of one area: one line of progress."""

    def __init__(self, *, suite: Suite, **more: Any) -> None:
        super().__init__(**more)
        self.suite = suite

    def collect(self) -> Iterator[CheckItem]:
        functions = implemented()
        for check in MANIFEST:
            if check.area != self.name or check.planned or check.level > self.suite.level:
                continue
            roles = [r for r in _ROLES.get(check.area, ()) if r in self.suite.subject.roles]
            for role in roles if check.area in _ROLES else [None]:
                binding = self.suite.subject.binding(role) if role else None
                item: CheckItem = CheckItem.from_parent(
                    self,
                    name=f"{check.name}[{binding.backend}]" if binding else check.name,
                    suite=self.suite,
                    check=check,
                    function=functions[check.id],
                    role=role,
                )
                yield item


# -- hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("portaflow conformance")
    add = group.addoption
    add("--target", metavar="NAME", help="the target to check, of portaflow.toml or built in")
    add("--config", metavar="FILE", help="the portaflow.toml to use [the nearest one above]")
    add("--level", choices=LEVELS, default="L1", help="L0 static, L1 core [L1]")
    add("--report", metavar="DIR", help="write report.json, junit.xml, index.html, badge.svg")
    add("--known-failures", metavar="FILE", help="TOML: id, reason, issue, expires")
    add("--rerun", action="store_true", help="run what failed once more, to tell flaky ones")
    add("--target-kind", choices=("local", "emulator", "real"), help="[local for a folder]")
    add("--image", metavar="REF", default="busybox", help="image with a POSIX shell [busybox]")
    add("--secret", metavar="NAME", default="conformance", help="a secret that is there")
    add("--shortest-ttl", metavar="S", default="5", help="shortest time-to-live enforced [5]")


_SUITE = pytest.StashKey[Suite]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.option.target:
        return
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        raise pytest.UsageError("--target runs the suite's own checks; give no files with it")
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("checks share clusters and are audited together; leave out -n")
    try:
        config.stash[_SUITE] = suite = Suite(config)
    except (PortaflowError, ValueError) as error:
        raise pytest.UsageError(str(error)) from error
    if suite.folder and not config.option.xmlpath:
        config.option.xmlpath = str(suite.folder / "junit.xml")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> object:
    """With --target the checks are collected, and nothing of the folder we are in."""
    suite = session.config.stash.get(_SUITE, None)
    if suite is None:
        return None
    hook = session.config.hook
    items: list[Any] = []
    for area in dict.fromkeys(c.area for c in MANIFEST):
        node: Area = Area.from_parent(session, name=area, nodeid=area, suite=suite)
        report = collect_one_node(node)
        hook.pytest_collectreport(report=report)
        if not report.passed:
            raise pytest.UsageError(str(report.longrepr))
        items += report.result
    suite.items = [i for i in items if isinstance(i, CheckItem)]
    session.items = items
    hook.pytest_collection_modifyitems(session=session, config=session.config, items=session.items)
    hook.pytest_collection_finish(session=session)
    session.testscollected = len(session.items)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if not isinstance(item, CheckItem):
        return report
    if call.when != "call":
        return report
    suite, error = item.suite, call.excinfo.value if call.excinfo else None
    outcome: Outcome = "passed"
    message = ""
    if error is not None:
        message = str(error) if isinstance(error, AssertionError | NotRun) else repr(error)
        outcome = "not run" if isinstance(error, NotRun) else "failed"
    if outcome == "failed" and suite.rerun and _passes_now(item):
        outcome, message = "flaky", f"failed first, passed when run again: {message}"
    known = next((k for k in suite.known if k.matches(item.check.id, item.backend)), None)
    if outcome == "failed" and known and known.expires >= suite.started.date():
        outcome, message = "known", f"{known.reason} ({known.issue}): {message}"
    if outcome in ("known", "not run"):
        report.outcome = "skipped"
        report.longrepr = (item.check.area, 0, message)
        if outcome == "known":
            report.wasxfail = message
    suite.results[item.check.id, item.backend] = item.result(outcome, call.duration, message)
    return report


def _passes_now(item: CheckItem) -> bool:
    try:
        item.runtest()
    except Exception:  # whatever it was, it is the same finding as before
        return False
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    suite = session.config.stash.get(_SUITE, None)
    if suite is None:
        return
    suite.subject.close()
    report = suite.report()
    if suite.folder:
        write(report, suite.folder)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.exitstatus = EXIT[report.verdict]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    suite = config.stash.get(_SUITE, None)
    if suite is None:
        return
    report = suite.report()
    say = terminalreporter.write_line
    terminalreporter.section("portaflow conformance", sep="=")
    used = ", ".join(f"{b['role']} {b['name']} {b['version']}" for b in report.backends)
    say(f"target {report.target} ({report.target_kind}): {used}")
    say(f"contract {report.contract}, level {report.level}, portaflow {report.portaflow}")
    say("")
    for line in _columns(capability_table(report), ("backend", "capability", "declared", "seen")):
        say(line)
    say("")
    for name, table in report.counts().items():
        said = ", ".join(f"{table.get(o, 0)} {o}" for o in ("passed", "failed", "not run"))
        rest = "".join(f", {table[o]} {o}" for o in ("known", "flaky") if table.get(o))
        say(f"{name:9} {said}{rest}")
    say(f"{'planned':9} {len(report.planned)} not in this level; they count as nothing")
    for problem in report.problems:
        say(f"known failures: {problem}", red=True)
    for (outcome, message), ids in _unclear(report.results).items():
        rest = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        say(f"{outcome}: {', '.join(ids[:3])}{rest}: {message}", yellow=True)
    if suite.folder:
        say(f"reports in {suite.folder}")
    say("")
    good = report.verdict == "conformant"
    say(f"{report.target}: {standing(report.to_json())}", bold=True, green=good, red=not good)


def _unclear(results: Iterable[Result]) -> dict[tuple[str, str], list[str]]:
    """What neither passed nor failed, by why."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.outcome in ("not run", "flaky", "known"):
            found.setdefault((result.outcome, result.message), []).append(result.id)
    return found


def _columns(rows: Iterable[tuple[str, ...]], head: tuple[str, ...]) -> list[str]:
    table = [head, *rows]
    widths = [max(len(r[n]) for r in table) for n in range(len(head))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table]
