"""L1, container: what is asked for is what runs, and what it says is what is told."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

from portaflow.backend import Capability, Cause, ContainerSpec, Handle, Size, State, Verdict
from portaflow.errors import BackendError, DeniedError, NotFoundError, RejectedError

from ..subject import NotRun, Subject, expect

_ODD = (
    "two  words", " padded ", "", "a\nb", "'single' \"double\"", "back\\slash", "*", "~", "-n",
    "--", "é 🚀", "#x", "a;b|c&d", "{{ x }}", "}}", "%s",
)  # fmt: skip
_EXPANDED = ("$HOME", "$(HOME)", "${HOME}", "`id`", "$$", "$$(HOME)", "$(id)", "%HOME%")

_HEX = "for v in \"$@\"; do printf '%s' \"$v\" | od -An -v -tx1 | tr -d ' \\n'; echo .; done"
"""Prints each argument in hexadecimal digits: no log can bend that."""


def exit_codes(subject: Subject) -> None:
    """The exit code is the command's own; only 0 is a success."""
    handles = {code: subject.sh(f"exit {code}") for code in (0, 1, 42, 126, 127, 255)}
    for code, handle in handles.items():
        seen = subject.wait("container", handle)
        wanted = State.FAILED if code else State.SUCCEEDED
        expect(seen.state is wanted, f"exit {code} is told as {seen}")
        expect(seen.exit_code == code, f"exit {code} is told as exit code {seen.exit_code}")
        if code:
            expect(seen.cause is Cause.USER, f"exit {code} is blamed on {seen.cause}, not the user")
            expect(seen.reason, f"exit {code} is told without a reason")


def signal_death_reported(subject: Subject) -> None:
    """A command that the kernel kills has failed, with 128 plus the signal."""
    handle = subject.sh("ulimit -t 1; while :; do :; done")
    seen = subject.wait("container", handle)
    expect(seen.state is State.FAILED, f"a command that was killed is told as {seen}")
    expect(
        seen.exit_code in (128 + 9, 128 + 24),
        f"a command killed with SIGKILL has exit code {seen.exit_code}, not 137",
    )


def args_verbatim(subject: Subject) -> None:
    """Arguments arrive as they are: spaces, quotes, line ends, nothing at all."""
    seen = subject.output(_HEX, *_ODD, *_EXPANDED)
    _same_values((*_ODD, *_EXPANDED), seen, "argument")


def entrypoint_args_matrix(subject: Subject) -> None:
    """`command` takes the place of the image's entrypoint (the probe image has none)."""

    def run(command: tuple[str, ...], args: tuple[str, ...]) -> bytes:
        spec = ContainerSpec(
            image=subject.options.image, owner=subject.owner, ttl=900, command=command, args=args
        )
        handle = subject.start("container", spec)
        subject.wait("container", handle, State.SUCCEEDED)
        return subject.log("container", handle).strip()

    expect(run(("echo", "a"), ("b",)) == b"a b", "command and args are not joined")
    expect(run(("echo", "a"), ()) == b"a", "a command without args does not run")
    expect(run((), ("echo", "c")) == b"c", "args alone do not follow the image's entrypoint")
    if subject.supports("container", Capability.IMAGES):
        return
    try:
        run((), ())
    except RejectedError:
        return
    raise AssertionError("there is no image and no command, and yet it is not refused")


def env_verbatim(subject: Subject) -> None:
    """Values of variables arrive as they are."""
    env = {f"V{n}": value for n, value in enumerate(_ODD)}
    _same_values(_ODD, subject.output(_show(env), env=env), "value of a variable")


def env_no_expansion(subject: Subject) -> None:
    """Nothing in a value is expanded by anybody on the way."""
    env = {f"V{n}": value for n, value in enumerate(_EXPANDED)}
    _same_values(_EXPANDED, subject.output(_show(env), env=env), "value of a variable")


def secret_delivered_by_reference(subject: Subject) -> None:
    """The command finds the secret's value in its environment."""
    if not subject.supports("container", Capability.SECRETS):
        _secrets_refused(subject)
        return
    handle = _with_secret(subject, 'test "$IT" = "$(printf %s "$1" | rev)" && echo equal')
    seen = subject.wait("container", handle)
    log = subject.log("container", handle)
    expect(b"equal" in log, f"the secret did not arrive as it is: {seen}")


def secret_absent_from_logs_errors(subject: Subject) -> None:
    """Nobody but the command sees the value: no log, no status, no error, no handle."""
    if not subject.supports("container", Capability.SECRETS):
        _secrets_refused(subject)
        return
    value = subject.secret.value
    recorder = _Recorder()
    logging.getLogger().addHandler(recorder)
    try:
        handle = _with_secret(subject, "echo no value here; exit 3")
        status = subject.wait("container", handle)
        log = subject.log("container", handle)
        shown: Mapping[str, str] = {
            "the container's log": log.decode(errors="replace"),
            "the status": repr(status),
            "the handle": repr(handle),
            "the driver's repr": repr(subject.here.driver("container")),
            "the log of Python": "\n".join(recorder.lines),
        }
    finally:
        logging.getLogger().removeHandler(recorder)
    for where, text in shown.items():
        expect(value not in text, f"the secret's value is in {where}")
    missing = subject.container("exit 0", secrets={"IT": "no-such-secret-anywhere"})
    try:
        handle = subject.start("container", missing)
    except (DeniedError, NotFoundError, RejectedError):
        return
    seen = subject.wait("container", handle)
    expect(seen.state is State.FAILED, f"without its secret a container is {seen}")
    expect(seen.reason, "a container that lacks its secret fails without a reason")


def logs_complete_fast_exit(subject: Subject) -> None:
    """A command that prints and ends at once has a whole log."""
    script = "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done"
    handles = [subject.sh(script) for _ in range(4)]
    for handle in handles:
        subject.wait("container", handle, State.SUCCEEDED)
        lines = subject.log("container", handle).splitlines()
        expect(
            lines == [b"line-%d" % n for n in range(2000)],
            f"2000 lines were printed, {len(lines)} are in the log; it ends with {lines[-1:]}",
        )


def logs_cursors_join(subject: Subject) -> None:
    """Pieces join without a gap or a repeat, whoever asks for the next one."""
    script = (
        "i=0; while [ $i -lt 30 ]; do echo $i; sleep 0.02; i=$((i+1)); done;"
        " yes 0123456789abcdef | head -n 150000; echo end"
    )
    handle = subject.sh(script)
    joined = b"".join(c.data for c in subject.chunks("container", handle, subject.fresh))
    whole = b"".join(b"%d\n" % n for n in range(30)) + b"0123456789abcdef\n" * 150000 + b"end\n"
    expect(
        joined == whole, f"{len(whole)} bytes were printed, the pieces join to {len(joined)} others"
    )


def log_odd_lines(subject: Subject) -> None:
    """A line of 1 MiB, bytes that are no UTF-8, and a last line without an end."""
    script = (
        "head -c 1048576 /dev/zero | tr '\\000' x; echo;"
        " printf 'bad \\377\\376 bytes\\n'; printf 'no end'"
    )
    lines = subject.output(script).split(b"\n")
    expect(lines[0] == b"x" * 2**20, f"a line of 1 MiB has become one of {len(lines[0])} bytes")
    expect(
        len(lines) == 3 and lines[1].startswith(b"bad ") and lines[1].endswith(b" bytes"),
        f"bytes that are no UTF-8 have become {lines[1:-1]}",
    )
    expect(lines[-1] == b"no end", f"a last line without an end has become {lines[-1][:50]!r}")


def image_missing_fast_typed(subject: Subject) -> None:
    """An image that does not exist is named, soon; it is not waited for."""
    image = "portaflow.invalid/no/such-image:1"
    spec = subject.container("exit 0", image=image)
    driver = subject.here.driver("container")
    if not subject.supports("container", Capability.IMAGES):
        fit = driver.fit(spec).get("image")
        expect(
            fit and fit.verdict is not Verdict.HONOURED and fit.reason,
            "images are not supported, but fit() does not say what becomes of one",
        )
        return
    try:
        handle = subject.start("container", spec)
    except BackendError as error:
        expect(
            isinstance(error, NotFoundError | RejectedError | DeniedError) or error.retryable,
            f"a missing image raises {error!r}",
        )
        expect("no/such-image" in str(error), f"the error does not name the image: {error}")
        return
    seen = subject.wait("container", handle, timeout=subject.soon("container", 120))
    expect(seen.state is State.FAILED, f"a container without its image is {seen}")
    expect("image" in seen.reason.lower(), f"the reason does not name the image: {seen.reason!r}")


def unschedulable_times_out(subject: Subject) -> None:
    """What fits nowhere is refused, or waits and says why; it does not run smaller."""
    spec = subject.container("exit 0", size=Size(cpu=100_000, memory=1_000_000))
    driver = subject.here.driver("container")
    fit = driver.fit(spec).get("size")
    if fit and fit.verdict is not Verdict.HONOURED:
        expect(fit.reason, "fit() does not say what becomes of the size")
        return
    try:
        handle = subject.start("container", spec)
    except BackendError:
        return
    waits_until = time.monotonic() + subject.soon("container", 10)
    while time.monotonic() < waits_until:  # to wait is right; to run is not
        seen = subject.status("container", handle)
        if isinstance(seen, NotFoundError) or seen.state is State.PENDING:
            time.sleep(0.2)
            continue
        bad = seen.state in (State.RUNNING, State.SUCCEEDED)
        expect(not bad, f"a container of 100,000 cores is {seen}, and fit() says it is honoured")
        expect(seen.cause is Cause.CAPACITY, f"what fits nowhere is blamed on {seen.cause}")
        return


def oom_typed(subject: Subject) -> None:
    """Too much memory is told as such, not as some exit code."""
    small = Size(cpu=1, memory=0.0625)
    if not subject.supports("container", Capability.LIMITS):
        _size_told(subject, small)
        return
    eat = "dd if=/dev/zero of=/dev/null bs=512M count=1"
    seen = subject.wait("container", subject.sh(eat, size=small))
    expect(seen.state is State.FAILED, f"512 MiB in 64 MiB of memory end as {seen}")
    text = seen.reason.lower()
    expect("memory" in text or "oom" in text, f"the reason does not name memory: {seen.reason!r}")


def resources_honoured(subject: Subject) -> None:
    """The memory of a size is the limit that the kernel enforces."""
    size = Size(cpu=0.5, memory=0.25)
    if not subject.supports("container", Capability.LIMITS):
        _size_told(subject, size)
        return
    limit = subject.output(
        "cat /sys/fs/cgroup/memory.max 2>/dev/null"
        " || cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        size=size,
    )
    expect(limit.strip() == b"%d" % 2**28, f"a container of 256 MiB has a limit of {limit!r}")


def non_root_by_default(subject: Subject) -> None:
    """A container is not root; where there is none, a command is who started it."""
    user = int(subject.output("id -u"))
    if subject.supports("container", Capability.IMAGES):
        expect(user != 0, "a container runs as root unless told otherwise")
    else:
        expect(user == os.getuid(), f"a command runs as user {user}, not as its starter's")


# -- parts


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _show(env: Mapping[str, str]) -> str:
    names = " ".join(f'"${name}"' for name in env)
    return f"set -- {names}; {_HEX}"


def _same_values(sent: tuple[str, ...], log: bytes, what: str) -> None:
    lines = log.decode().splitlines()
    seen = [_unhex(line) for line in lines]
    expect(len(seen) == len(sent), f"{len(sent)} were sent ({what}), {len(seen)} have arrived")
    for a, b in zip(sent, seen, strict=True):
        expect(a == b, f"the {what} {a!r} has arrived as {b!r}")


def _unhex(line: str) -> str:
    try:
        return bytes.fromhex(line.rstrip(".")).decode(errors="replace")
    except ValueError:
        return f"not in hexadecimal: {line[:60]}"


def _with_secret(subject: Subject, script: str) -> Handle:
    """Start with the secret, whose reversed value is $1: so it is in no argument."""
    secret = subject.secret
    spec = subject.container(script, secret.value[::-1], secrets={"IT": secret.name})
    try:
        return subject.start("container", spec)
    except (DeniedError, NotFoundError) as error:
        if secret.known:
            raise AssertionError(f"the secret {secret.name!r} is not found: {error}") from error
        raise NotRun(
            f"the provider has no secret {secret.name!r}: make it there, and put the same "
            f"value into the environment variable {secret.variable}"
        ) from error


def _secrets_refused(subject: Subject) -> None:
    try:
        handle = _with_secret(subject, 'test -n "$IT"')
        status = subject.wait("container", handle)
    except (BackendError, NotRun):
        return
    expect(status.state is not State.SUCCEEDED, "secrets work but are not declared")


def _size_told(subject: Subject, size: Size) -> None:
    fit = subject.here.driver("container").fit(subject.container("exit 0", size=size)).get("size")
    expect(
        fit and fit.verdict is not Verdict.HONOURED and fit.reason,
        "limits are not supported, but fit() does not say what becomes of a size",
    )
