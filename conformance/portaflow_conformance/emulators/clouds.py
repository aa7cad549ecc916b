"""Stand-ins side by side: one proxy, one authority, one control for all of them.

    with emulate("aws", "kubernetes") as clouds:
        subprocess.run([...], env=clouds.environ())
        clouds.control.order(Fault(effect="throttle", operation="aws:emr.RunJobFlow"))

Clients read proxies and certificates when they are imported or make a connection, so they
belong into a process of their own that has this environment from its start.
"""

from __future__ import annotations

import gc
import importlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from portaflow.errors import PluginError, PortaflowError, RunError

from .janitor import Janitor
from .place import Emulator, Place

EMULATORS: Mapping[str, str] = {
    "aws": "portaflow_conformance.emulators.aws:AwsEmulator",
    "gcp": "portaflow_conformance.emulators.gcp:GcpEmulator",
    "kubernetes": "portaflow_conformance.emulators.kubernetes:KubernetesEmulator",
}
"""Name -> where its class is. Who writes another gives "module:Class" instead of a name."""

INSTALL = "pip install 'portaflow-conformance[emulators]'"
_START = 120.0  # seconds: the first start on a machine may have to fetch something
_STOP = 30.0
_V = TypeVar("_V")


class Clouds:
    """Stand-ins that run. `env` is what a client needs; `control` orders faults."""

    def __init__(
        self,
        names: Iterable[str | type[Emulator]],
        *,
        pace: float,
        seed: int,
        log: Path | None,
        images: Mapping[str, Path] = MappingProxyType({}),
        buckets: Iterable[str] = (),
    ) -> None:
        self._names = list(dict.fromkeys(names))
        self._pace, self._seed, self._log = pace, seed, log
        self._images, self._buckets = images, tuple(buckets)
        self._undo = ExitStack()
        self._table: Mapping[str, int] = {}
        self._keepers: list[_Keeper] = []
        self.emulators: Mapping[str, Emulator] = {}
        self.env: Mapping[str, str] = {}

    def start(self) -> None:
        """Start all of them at once. Raises PluginError or RunError, and leaves nothing then."""
        try:
            self._start()
        except BaseException:
            with suppress(RunError):  # why it did not start says more than what then did not stop
                self.stop()
            raise

    def _start(self) -> None:
        places = [_where(name) if isinstance(name, str) else name for name in self._names]
        _need_extras()
        classes = [_imported(place) if isinstance(place, str) else place for place in places]
        from .authority import Authority
        from .control import Control
        from .endpoint import VARIABLE, Endpoint
        from .environment import routing
        from .proxy import Proxy

        folder = Path(tempfile.mkdtemp(prefix="portaflow-emulate-"))
        janitor = Janitor(folder)
        self._undo.callback(janitor.stop)
        self.control = Control(seed=self._seed)
        self._undo.callback(self.control.close)
        if self._log is not None:
            self.control.log_to(self._log)
        authority = Authority(folder)
        proxy = Proxy(self.control, lambda: self._table)
        proxy.start()
        self._undo.callback(proxy.stop)
        endpoint = Endpoint(self.control, [cls.name for cls in classes])
        self._undo.callback(endpoint.stop)

        emulators: dict[str, Emulator] = {}
        for cls in classes:
            own = folder / cls.name
            own.mkdir()
            emulators[cls.name] = cls(
                Place(
                    folder=own,
                    authority=authority,
                    control=self.control,
                    pace=self._pace,
                    others=MappingProxyType(emulators),
                    abort=proxy.abort,
                    removes=janitor.removes,
                    images=self._images,
                    buckets=self._buckets,
                )
            )
        self.emulators = emulators
        self._keepers = [_Keeper(emulator) for emulator in emulators.values()]
        self._undo.callback(self._end_keepers)
        self._undo.callback(self.control.clear)  # a call that is held would keep its stand-in
        for keeper in self._keepers:
            keeper.started()
        # What is there now stays: to look through all of it for garbage again and again, 60 ms
        # and more each time, would be to answer nobody meanwhile.
        gc.freeze()
        self._undo.callback(gc.unfreeze)
        self._table = _merged("hosts", {n: e.routes() for n, e in emulators.items()})
        theirs = _merged("variables", {n: e.env() for n, e in emulators.items()})
        ours = routing(folder, authority, proxy.port)
        self.env = {**ours, **theirs, VARIABLE: endpoint.url}

    def environ(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """A whole environment for a command: `base` (default: ours) without what leads to real
        clouds, and `env`."""
        from .environment import inside

        return {**inside(os.environ if base is None else base), **self.env}

    def stop(self) -> None:
        """End everything, the last started first; idempotent."""
        self._undo.close()

    def _end_keepers(self) -> None:
        for keeper in self._keepers:
            keeper.ask_to_stop()
        problems = [problem for keeper in self._keepers if (problem := keeper.ended())]
        if problems:
            raise RunError("; ".join(problems))


@contextmanager
def emulate(
    *names: str | type[Emulator],
    pace: float = 0.1,
    seed: int = 0,
    log: Path | None = None,
    images: Mapping[str, Path] = MappingProxyType({}),
    buckets: Iterable[str] = (),
) -> Iterator[Clouds]:
    """Run stand-ins, by name or by class, in this process for as long as it is entered.

    `pace` stretches the time that states take (0 is at once), `seed` decides about faults with
    a probability, `log` gets each call as a line of JSON, `images` are folders with a Dockerfile
    that pods may name as their image, `buckets` are made in each store.
    """
    clouds = Clouds(names, pace=pace, seed=seed, log=log, images=images, buckets=buckets)
    clouds.start()
    try:
        yield clouds
    finally:
        clouds.stop()


class _Keeper:
    """The thread in which one stand-in starts and stops: what it begins may hang on that."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._ready = threading.Event()
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._keep, name=emulator.name, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        try:
            self._emulator.start()
        except BaseException as error:  # told by `started`, in the thread of who asked
            self._error = error
        self._ready.set()
        self._end.wait()
        try:
            self._emulator.stop()
        except Exception as error:
            self._problem = f"{self._emulator.name} did not stop: {_said(error)}"

    def started(self) -> None:
        """Wait until it answers. Raises RunError when it does not."""
        name = self._emulator.name
        if not self._ready.wait(_START):
            raise RunError(f"the stand-in {name} does not answer after {_START:.0f} s")
        if isinstance(self._error, PortaflowError):
            raise self._error
        if self._error is not None:
            said = _said(self._error)
            raise RunError(f"the stand-in {name} did not start: {said}") from self._error

    def ask_to_stop(self) -> None:
        self._end.set()

    def ended(self) -> str:
        """Wait for the end; what went wrong, "" for nothing."""
        self._thread.join(_STOP)
        if self._thread.is_alive():
            return f"{self._emulator.name} does not stop; its processes end with this one"
        return self._problem


def _where(name: str) -> str:
    """The "module:Class" of a stand-in."""
    where = EMULATORS.get(name, name)
    if ":" not in where:
        from portaflow.pipeline import suggest

        raise PluginError(f"there is no stand-in {name!r}{suggest(name, EMULATORS)}")
    return where


def _imported(where: str) -> type[Emulator]:
    module, _, attribute = where.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        hint = f"; {INSTALL}" if isinstance(error, ModuleNotFoundError) else ""
        raise PluginError(f"the stand-in {where} cannot be imported: {error}{hint}") from error
    if not (isinstance(cls, type) and issubclass(cls, Emulator)):
        raise PluginError(f"{where} is no Emulator")
    return cls


def _merged(what: str, tables: Mapping[str, Mapping[str, _V]]) -> dict[str, _V]:
    """One table of all; two stand-ins that claim one key would make it a matter of luck."""
    merged: dict[str, _V] = {}
    for name, table in tables.items():
        if taken := merged.keys() & table.keys():
            raise PluginError(f"the stand-in {name} claims {what} that another has: {taken}")
        merged |= table
    return merged


def _need_extras() -> None:
    """Refuse early and with a way out where the distribution is there, but not the extra."""
    try:
        importlib.import_module("trustme")
    except ImportError as error:
        raise PluginError(f"local clouds need {error.name}; {INSTALL}") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
