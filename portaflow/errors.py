"""Every error portaflow raises. `retryable` is the one thing an executor asks of an error.

A message names the thing, the cause and the next step. The classes say which exit code a
command ends with (`exit_code`): 0 good, 1 the run failed, 2 definition, target or plugin,
3 something may still cost money.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .backend import Handle


class PortaflowError(Exception):
    """Base of all errors raised by portaflow and its plugins."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


# -- before anything ran: the user can fix these


class DefinitionError(PortaflowError):
    """The pipeline is wrong: a cycle, an unknown input, a duplicate name."""

    exit_code = 2


class TargetError(PortaflowError):
    """The target is wrong: an unknown backend, a missing or unknown setting."""

    exit_code = 2


class UnsupportedError(PortaflowError):
    """The backend does not have a capability that the pipeline asks for."""

    exit_code = 2


class PluginError(PortaflowError):
    """A plugin cannot be loaded, breaks the interface, or claims a name that is taken."""

    exit_code = 2


class SeveralErrors(PortaflowError):
    """More than one thing is wrong: each is an error of its own in `errors`."""

    exit_code = 2

    def __init__(self, errors: Iterable[PortaflowError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


def each(error: PortaflowError) -> tuple[PortaflowError, ...]:
    """The errors that an error consists of: itself, unless it is several."""
    return error.errors if isinstance(error, SeveralErrors) else (error,)


class Gathered:
    """What is wrong, gathered so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: dict[str, PortaflowError] = {}  # by its text: the same is told once

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take in what is raised, and go on."""
        try:
            yield
        except PortaflowError as error:
            self.add(error)

    def add(self, error: PortaflowError) -> None:
        for one in each(error):
            self._found.setdefault(str(one), one)

    def all(self) -> PortaflowError | None:
        """What was found as one error: a single one as it is."""
        found = list(self._found.values())
        return SeveralErrors(found) if len(found) > 1 else found[0] if found else None

    def tell(self) -> None:
        """Raise what was found."""
        if error := self.all():
            raise error


# -- while talking to a provider: raised by backends


class BackendError(PortaflowError):
    """A provider refused or failed. Backends translate every SDK error to a subclass."""


class NotFoundError(BackendError):
    """The provider does not know this handle, name or key."""


class ConflictError(BackendError):
    """The name is already taken by something else."""


class DeniedError(BackendError):
    """Credentials are missing, expired or too weak."""


class RejectedError(BackendError):
    """The provider read the request and found it invalid."""


class QuotaError(BackendError):
    """A quota or a capacity limit was hit: asking again later may help."""

    retryable = True


class UnavailableError(BackendError):
    """Throttled, timed out or unreachable: asking again may help."""

    retryable = True


def advised(text: str, said: str, advice: Mapping[str, str]) -> str:
    """`text`, and what helps: the first of `advice` whose pattern is in what a provider `said`."""
    helps = (fix for words, fix in advice.items() if re.search(words, said, re.IGNORECASE))
    return "; ".join(filter(None, (text, next(helps, ""))))


# -- while a run is under way


class RunError(PortaflowError):
    """A run did not succeed, or cannot be started, resumed or read."""


class LeakError(RunError):
    """Something could not be stopped and may still cost money; `handles` names it all."""

    exit_code = 3

    def __init__(self, message: str, handles: Sequence[Handle] = ()) -> None:
        super().__init__(message)
        self.handles = tuple(handles)
