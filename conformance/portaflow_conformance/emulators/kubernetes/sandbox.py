"""The walls around a container: namespaces of processes and mounts, and a root of its own.

The root is this machine's, seen through an overlay: what a container writes outside its volumes
is gone when it ends, and mount points can be made without touching the machine. Every command
here is one of util-linux or of a POSIX shell.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .security import Security

# Arguments: base folder, file systems of this machine, folders that other users must be let
# through, "ro" or "rw" for the root, then triples (source, target, "ro" or "rw") closed by "--",
# then the working folder and the command. Nothing is interpolated.
_BEGIN = r"""
set -e
base=$1 own=$2 closed=$3 mode=$4; shift 4
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/devices" "$base/devwork" "$base/root"
root=$base/root parts=
"""

_WHOLE = r"""
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$root"
for one in $closed; do chmod go+x "$root$one"; done
mount -t overlay overlay \
    -o "lowerdir=/dev,upperdir=$base/devices,workdir=$base/devwork" "$root/dev"
"""

# In a user namespace nothing may be laid over a folder below which the world outside has mounted
# something: so the root is made of the folders in it, and what cannot be had is not there.
_PARTS = r"""
mount -t tmpfs tmpfs "$root"
for one in /*; do
    if [ -L "$one" ]; then ln -s "$(readlink "$one")" "$root$one"
    elif [ -d "$one" ]; then
        mkdir -p "$base/upper$one" "$base/work$one" "$root$one"
        case $one in /proc|/sys|/dev) continue;; esac
        mount -t overlay overlay \
            -o "lowerdir=$one,upperdir=$base/upper$one,workdir=$base/work$one,userxattr" \
            "$root$one" 2>/dev/null && parts="$parts $one"
    fi
done
mkdir "$root/dev/pts" "$root/dev/shm"
for one in null zero full random urandom tty ptmx; do
    : > "$root/dev/$one"
    mount --bind "/dev/$one" "$root/dev/$one"
done
ln -s /proc/self/fd "$root/dev/fd"
for one in stdin:0 stdout:1 stderr:2; do ln -s "fd/${one#*:}" "$root/dev/${one%:*}"; done
"""

_END = r"""
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
for one in pts shm; do mount --bind "/dev/$one" "$root/dev/$one"; done
for one in $own; do mount --rbind "$one" "$root$one" 2>/dev/null || :; done  # may have gone
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then
        [ -d "$root$2" ] || mkdir -p "$root$2"
    elif [ ! -e "$root$2" ]; then
        over=$root${2%/*}
        [ -d "$over" ] || mkdir -p "$over"
        : > "$root$2"
    fi
    mount --bind -o "$3" "$1" "$root$2"
    shift 3
done
shift
[ -d "$root$1" ] || mkdir -p "$root$1"
if [ "$mode" = ro ]; then
    mount -o remount,ro "$root"
    for one in $parts; do mount -o remount,ro "$root$one"; done
fi
exec chroot "$root" /bin/sh -c 'cd "$1"; shift; exec "$@"' sh "$@"
"""

# The shell outside is the parent of the container's first process and tells how that ended;
# unshare's own --fork cannot tell a SIGKILL. What it would say itself is nobody's output.
_PARENT = """
exec 3>&2 2>/dev/null
setpriv --pdeathsig KILL -- /bin/sh -c "$0" sh "$@" 2>&3 3>&-
exit $?
"""

_TOOLS = ("unshare", "nsenter", "setpriv", "setsid", "chroot", "mount")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that a container sees at `target`."""

    source: Path
    target: str
    read_only: bool = False


class Unmountable(Exception):
    """This machine cannot give a container what it asks for."""


class Sandbox:
    """Makes the command that runs a container's command; finds out at start what can be had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unshare: list[str] = []
        self._setup = ""
        others = _other_mounts()
        self._own = " ".join(others)
        self._closed = " ".join(_closed(others))
        self.isolated = all(map(shutil.which, _TOOLS)) and self._choose()

    def _choose(self) -> bool:
        """Settle how namespaces are made: as root, or in a user namespace."""
        plain = ["unshare", "--mount", "--pid", "--propagation", "private"]
        user = [*plain, "--user", "--map-root-user"]
        for words, root in ((plain, _WHOLE), (user, _WHOLE), (user, _PARTS)):
            self._unshare, self._setup = words, _BEGIN + root + _END
            probe = self._folder / "probe"
            probe.mkdir(exist_ok=True)
            done = subprocess.run(
                self.command(probe, ["true"], [], "/", PLAIN),
                capture_output=True, check=False, timeout=20,
            )  # fmt: skip
            probe.rmdir()
            if done.returncode == 0:
                return True
        self._unshare = []
        return False

    @property
    def _may_change(self) -> bool:
        """Whether a process can become another user: not in a user namespace, which has one."""
        return os.getuid() == 0 and "--user" not in self._unshare

    def command(
        self, base: Path, command: Sequence[str], mounts: Sequence[Mount], folder: str,
        security: Security, *, terminal: bool = False,
    ) -> list[str]:  # fmt: skip
        """`base` is an empty folder for the root; `folder` the working folder in it."""
        command = self._wrapped(command, security, terminal)
        if not self._unshare:
            if any(not m.target.startswith("/dev/") for m in mounts):
                raise Unmountable("no namespaces can be made here, so no volume can be mounted")
            return [*_leash(), *command]
        words = [
            word for m in mounts
            for word in (str(m.source), _real(m.target), "ro" if m.read_only else "rw")
        ]  # fmt: skip
        closed = self._closed if security.user else ""
        mode = "ro" if security.read_only else "rw"
        given = [str(base), self._own, closed, mode, *words, "--", folder, *command]
        return [*_leash(), *self._unshare, "--", "/bin/sh", "-c", _PARENT, self._setup, *given]

    def _wrapped(self, command: Sequence[str], security: Security, terminal: bool) -> list[str]:
        # A session of its own, that has the terminal: what a key interrupts is the command, and
        # not what has set it up and waits for it.
        session = [shutil.which("setsid") or "setsid", "--ctty"] if terminal else []
        return [*session, *security.words(may_change=self._may_change), *command]

    def inside(
        self, pid: int, command: Sequence[str], security: Security, *, terminal: bool = False
    ) -> list[str]:
        """The command that runs another beside process `pid` of a container."""
        command = self._wrapped(command, security, terminal)
        if not self._unshare:
            return [*_leash(), *command]
        user = ["--user", "--preserve-credentials"] if "--user" in self._unshare else []
        return [
            *_leash(), "nsenter", "--target", str(pid), *user, "--mount", "--pid", "--root", "--wd",
            "--", *command,
        ]  # fmt: skip


PLAIN = Security()
_HIDDEN = ("/proc", "/sys", "/dev", "/run", "/snap", "/boot", "/tmp")
_PASSING = ("autofs", "squashfs", "tmpfs", "overlay")


def _leash() -> list[str]:
    """Let the kernel end a command when the thread that started it is gone; and let it have
    the signals that this process ignores, as one in the background of a shell does.
    """
    words = ["setpriv", "--pdeathsig", "KILL", "--"]
    ignored = [s.name[3:] for s in (signal.SIGINT, signal.SIGQUIT)
               if signal.getsignal(s) is signal.SIG_IGN]  # fmt: skip
    return [*words, "env", *(f"--default-signal={name}" for name in ignored)] if ignored else words


def _real(target: str) -> str:
    """A path without links, such as /var/run: outside the root they would lead elsewhere."""
    return os.path.realpath(target)


def _other_mounts() -> list[str]:
    """File systems besides the root's that hold files, such as /home: an overlay of / has not
    got them.
    """
    found: list[str] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, kind = line.split()[1:3]
        if where == "/" or where.startswith(_HIDDEN) or kind in _PASSING or "\\" in where:
            continue
        if not os.path.isdir(where):
            continue
        if not any(where.startswith(f"{other}/") for other in found):
            found.append(where)
    return found


def _closed(others: Sequence[str]) -> list[str]:
    """Folders above this Python that only their owner may enter, as /root is: a container that
    runs as another user gets them opened, in its own root alone.
    """
    found: list[str] = []
    for start in (sys.executable, os.path.realpath(sys.executable), sys.prefix, sys.base_prefix):
        for folder in map(str, Path(start).parents):
            elsewhere = any(f"{folder}/".startswith(f"{other}/") for other in others)
            if not elsewhere and " " not in folder and os.stat(folder).st_mode & 0o011 != 0o011:
                found.append(folder)
    return list(dict.fromkeys(found))
