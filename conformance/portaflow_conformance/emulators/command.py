"""portaflow emulate: local clouds for a shell, a script or one command."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from portaflow.cli.interrupt import Interrupts

from .clouds import Clouds
from .running import leashed

_LOOK = 0.2  # seconds between two looks at whether our parent is alive
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_GRACE = 10.0  # seconds that a command has to end when we are asked to


class _Split(click.Command):
    """A command that takes another's words after "--", whatever they look like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        if args[at:] == ["--"]:
            ctx.fail("no command after --; leave it out to go on until Ctrl-C")
        ctx.obj = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])


@click.command(cls=_Split)
@click.argument("names", nargs=-1, required=True, metavar="CLOUD... [-- COMMAND...]")
@click.option(
    "--pace",
    type=click.FloatRange(0, 1000),
    default=0.1,
    show_default=True,
    help="How long states last: 0 is at once, 1 makes a cluster take two seconds.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For faults by chance.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append each call to this file, as a line of JSON.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME=FOLDER",
    help="An image of pods that is a folder with a Dockerfile; again for another.",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME",
    help="A bucket that is there from the start; again for another.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the environment as JSON.")
@click.pass_context
def emulate(
    ctx: click.Context,
    names: tuple[str, ...],
    pace: float,
    seed: int,
    log: Path | None,
    images: tuple[str, ...],
    buckets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run clouds on this machine: aws, gcp, kubernetes. Jobs in them really run.

    Prints the environment by which unmodified clients reach them, and goes on until Ctrl-C,
    SIGTERM or the end of the process that began it (nohup: until SIGTERM). With -- COMMAND,
    runs the command in that environment and ends with its exit code.

    \b
    portaflow emulate aws gcp > clouds.sh &      then: . ./clouds.sh
    portaflow emulate aws -- aws s3 ls

    Nothing in that environment reaches a real cloud: every other host is refused.
    """
    if log is not None:
        try:
            log.open("a").close()
        except OSError as error:
            raise click.BadParameter(f"{log}: {error.strerror}", param_hint="--log") from error
    if wrong := [name for name in buckets if not _BUCKET.fullmatch(name)]:
        text = f"{wrong[0]!r}: a bucket has 3 to 63 of a-z, 0-9, '-' and '.' in its name"
        raise click.BadParameter(text, param_hint="--bucket")
    began = time.monotonic()
    clouds = Clouds(names, pace=pace, seed=seed, log=log, images=_folders(images), buckets=buckets)
    life = _Life()
    with Interrupts(life.told):
        try:
            clouds.start()
            if command := ctx.obj:
                code = life.run(command, clouds)
            else:
                _print(clouds, as_json)
                took = time.monotonic() - began
                click.echo(f"{', '.join(names)}: up in {took:.1f} s; Ctrl-C ends it", err=True)
                code = life.wait()
        finally:
            clouds.stop()
    _tell_refused(clouds)
    ctx.exit(code)


def _folders(images: Sequence[str]) -> dict[str, Path]:
    """Image -> folder."""
    pairs = [text.partition("=") for text in images]
    for name, _, folder in pairs:
        if not name or not Path(folder, "Dockerfile").is_file():
            text = f"{name}={folder}: say NAME=FOLDER, where a folder holds a Dockerfile"
            raise click.BadParameter(text, param_hint="--image")
    return {name: Path(folder).absolute() for name, _, folder in pairs}


class _Life:
    """How long we live: until we are asked to end, our parent has ended, or the command has."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._starting = threading.Lock()  # a signal must not come between a child and its name
        self._child: subprocess.Popen[bytes] | None = None
        self._foreground = False
        self._number = 0
        self._parent = os.getppid()
        self._outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup

    def told(self, number: signal.Signals, count: int) -> None:
        """Hear of a signal, in a thread."""
        with self._starting:
            child = self._child
        if child is not None:
            self._pass_on(number)
            if number == signal.SIGINT:
                return  # it is the command's to decide: a shell only drops the line
        elif self._asked.is_set():
            os._exit(128 + number)  # who asks twice does not wait; the leashes clear away
        self._number = number
        self._asked.set()

    def wait(self) -> int:
        while not self._asked.wait(_LOOK) and not self._orphaned():
            pass
        return 0

    def run(self, command: Sequence[str], clouds: Clouds) -> int:
        """Run a command to its end; its exit code, 128 + n for signal n.

        At a terminal it shares our process group, so that Ctrl-C and Ctrl-Z mean it as they
        mean any program there. Elsewhere it has a group of its own, which ends with it.
        """
        if self._asked.is_set():  # while the stand-ins were starting
            return 128 + self._number
        self._foreground = sys.stdin.isatty()
        env = clouds.environ()
        if not shutil.which(command[0], path=env.get("PATH")):
            there = os.path.exists(command[0])
            why = os.strerror(errno.EACCES if there else errno.ENOENT)
            click.echo(f"error: {command[0]}: {why}", err=True)
            return 126 if there else 127
        if self._foreground:
            child = self._start(command, env=env)
            self._wait_for(child)
        else:
            read, write = os.pipe()
            child = self._start(leashed(command, read), env=env, process_group=0, pass_fds=(read,))
            os.close(read)
            self._wait_for(child)
            self._pass_on(signal.SIGKILL)  # to what it left in its group
            os.close(write)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def _start(self, words: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        with self._starting:
            self._child = subprocess.Popen(words, **how)
        return self._child

    def _wait_for(self, child: subprocess.Popen[bytes]) -> None:
        while not self._asked.is_set():
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK)
                return
            if self._orphaned():
                self._pass_on(signal.SIGTERM)
                break
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._pass_on(signal.SIGKILL)
            child.wait()

    def _pass_on(self, number: signal.Signals) -> None:
        assert self._child is not None
        with suppress(ProcessLookupError):
            if not self._foreground:
                os.killpg(self._child.pid, number)
            elif number != signal.SIGINT:  # the terminal has sent that to both of us
                self._child.send_signal(number)

    def _orphaned(self) -> bool:
        return not self._outlives and os.getppid() != self._parent


def _print(clouds: Clouds, as_json: bool) -> None:
    """The environment in one piece: who waits for the first byte has all of it."""
    from .environment import outside

    unset = [name for name in outside(os.environ) if name not in clouds.env]
    if as_json:
        text = json.dumps({"env": dict(clouds.env), "unset": unset}, indent=2)
    else:
        lines = [f"unset {name}" for name in unset]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in clouds.env.items()]
        text = "\n".join(lines)
    click.echo(text)


def _tell_refused(clouds: Clouds) -> None:
    """Most clients swallow why they could not reach a host."""
    hosts = Counter(str(call.params["host"]) for call in clouds.control.seen("proxy:Refused"))
    if hosts:
        told = ", ".join(f"{host} ({n})" for host, n in sorted(hosts.items()))
        click.echo(f"refused, for no stand-in has it: {told}", err=True)
