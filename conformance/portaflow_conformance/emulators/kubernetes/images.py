"""Images by name. There is no registry here: an image is this machine, under a name.

What a name decides is whether it can be pulled, and what runs when a pod gives no command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

_REFERENCE = re.compile(
    r"(?P<name>(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@sha256:(?P<digest>[0-9a-f]{64}))?"
)
# Names that RFC 2606 keeps free of any host: there never is a registry behind them.
_NO_HOST = (".invalid", ".test", ".example")


@dataclass(frozen=True, slots=True)
class Image:
    """What an image brings: its entrypoint, its default arguments, its environment, its user."""

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: int = 0  # that its containers run as when their pod names none


class PullError(Exception):
    """The image cannot be had. `reason` is that of the container's waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def whole(reference: str) -> str:
    """A reference that can be pulled, with all that was left out of it, as a node lists it."""
    match = _REFERENCE.fullmatch(reference)
    assert match
    host, slash, _ = reference.partition("/")
    if not slash or not (host == "localhost" or {".", ":"} & {*host}):
        reference = f"docker.io/{'' if slash else 'library/'}{reference}"
    return reference if match["tag"] or match["digest"] else f"{reference}:latest"


_SHELL = Image(arguments=("sh",))
_KNOWN = {
    "alpine": _SHELL, "bash": Image(arguments=("bash",)), "busybox": _SHELL, "debian": _SHELL,
    "python": Image(arguments=("python3",)), "ubuntu": _SHELL,
}  # fmt: skip


class Images:
    """Which names there are. All are, unless their host cannot be, or `remove` was called."""

    def __init__(self) -> None:
        self._rules: dict[str, Image | None] = {}
        self.pulled: set[str] = set()  # references that the node has already

    def add(self, pattern: str, image: Image) -> None:
        """Say what images whose name (without tag and digest) matches bring."""
        self._rules[pattern] = image

    def remove(self, pattern: str) -> None:
        """Let images whose name (with tag and digest, or without) matches be unknown."""
        self._rules[pattern] = None

    def find(self, reference: str) -> Image:
        """Return the image. Raises PullError when there is none."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            text = f'Failed to apply default image tag "{reference}": couldn\'t parse image name'
            raise PullError("InvalidImageName", f"{text}: invalid reference format")
        name = match["name"].removeprefix("docker.io/").removeprefix("library/")
        host = name.partition("/")[0].partition(":")[0] if "/" in name else ""
        if host.endswith(_NO_HOST):
            text = f'failed to resolve reference "{reference}": lookup {host}: no such host'
            raise PullError(
                "ErrImagePull", f'failed to pull and unpack image "{reference}": {text}'
            )
        for pattern, image in reversed(self._rules.items()):
            if fnmatchcase(name, pattern) or fnmatchcase(reference, pattern):
                if image is None:
                    text = f"{reference}: not found"
                    raise PullError("ErrImagePull", f"failed to pull and unpack image: {text}")
                return image
        return _KNOWN.get(name, Image())


def command(container: dict[str, object], image: Image) -> list[str]:
    """The words to run: a pod's command replaces the entrypoint, and drops the image's
    arguments; its args replace the arguments alone.
    """
    given, args = container.get("command") or [], container.get("args") or []
    assert isinstance(given, list)
    assert isinstance(args, list)
    if given:
        return [*given, *args]
    return [*image.entrypoint, *(args or image.arguments)]
