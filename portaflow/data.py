"""What a run reads and writes: local files, staging, and the manifest that commits a task.

A task writes under `{root}/{pipeline}/{run}/{task}/{output}`. After it has ended well its
outputs are listed and `_manifest.json` is made beside them by create-if-absent: the manifest
is the commit. What has none was never finished.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import (
    BackendError,
    DefinitionError,
    DeniedError,
    Gathered,
    NotFoundError,
    QuotaError,
    RunError,
    UnavailableError,
)
from .load import Project, naming
from .pipeline import CallTask, ContainerTask, Source, SparkTask
from .plan import Action, Image, Local, LocalFile, Staged, image_key, source_key
from .specs import of_target, tasks_on
from .target import Target

_LARGEST_VALUE = 256 * 1024  # bytes of a task's value
_LARGEST_IMAGE = 64 * 2**20  # bytes of a folder that an image is built from
_MANIFEST = {"task", "attempt", "outputs", "value"}
_LEFT_OUT = {"__pycache__", ".git", ".venv", ".pytest_cache"}


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn what a filesystem raises into our errors; FileExistsError passes."""
    try:
        yield
    except (BackendError, FileExistsError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{where}: is not there: {error}") from error
    except PermissionError as error:
        raise DeniedError(f"{where}: the store refuses: {error}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DeniedError(f"{where}: the store refuses: {error}") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise QuotaError(f"{where}: the store is full: {error}") from error
        raise UnavailableError(f"{where}: the store fails: {error}") from error


Stores = Callable[[str], Any]
"""The filesystem that holds a URI: with tasks in several places, a run has several stores."""


def contents(stores: Stores, paths: Sequence[str]) -> list[bytes | None]:
    """What is in each object, several at a time; None for one that is not there.

    `cat` of fsspec takes a path with `[`, `*` or `?` in it for a pattern.
    """

    def one(path: str) -> bytes | None:
        try:
            with store_errors(path):
                data: bytes = stores(path).cat_file(path)
        except NotFoundError:
            return None
        return data

    with ThreadPoolExecutor(8 if len(paths) > 8 else 1) as pool:
        return list(pool.map(one, paths))


# -- local files, read before a plan is made


def collect(project: Project, target: Target, wrong: Gathered | None = None) -> Local:
    """Digest every local file and image folder that the pipeline names.

    With `wrong` what cannot be read is put there, for the caller to tell, and is left empty.
    """
    if wrong is not None:
        return _collect(project, target, wrong)
    with naming(project.file):
        local = _collect(project, target, wrong := Gathered())
        wrong.tell()
    return local


def _collect(project: Project, target: Target, wrong: Gathered) -> Local:
    pipeline = project.pipeline
    files: dict[str, LocalFile] = {}
    images: dict[str, Image] = {}
    for task in tasks_on(pipeline, target):
        where = f"task {task.id!r}"
        match task:
            case SparkTask():
                for path in (task.main, *task.py_files, *task.jars):
                    if "://" not in path and path not in files:
                        files[path] = LocalFile(path, path, "", 0)
                        with wrong.one():
                            file = _inside(project.folder, path, where)
                            files[path] = _digest(path, file, where)
            case ContainerTask():
                place = target.placed(task.id)
                if (key := image_key(task.image, place)) not in images:
                    with wrong.one():
                        images[key] = _image(task.image, project, target.at(place))
            case CallTask():
                module = task.function.partition(":")[0]
                if module.endswith(".py"):
                    with wrong.one():
                        _inside(project.folder, module, where)
    for name, source in {**pipeline.sources, **target.sources}.items():
        if source.path and name in pipeline.sources:
            files[source_key(name)] = LocalFile(source.path, name, "", 0)
            with wrong.one(), of_target(target, name):
                files[source_key(name)] = _source(name, source, project, target)
    return Local(files, images)


def _source(name: str, source: Source, project: Project, target: Target) -> LocalFile:
    where = f"source {name!r}"
    base = target.base if name in target.sources else project.folder
    if source.package:
        base = _package(source, where)
    return _digest(source.path, _inside(base, source.path, where), where)


def _inside(folder: Path, path: str, where: str) -> Path:
    """The file, which must exist in `folder`: a pipeline cannot reach for /etc/passwd."""
    try:
        file = (folder / path).resolve()
        inside, there = _below(folder / path, folder), file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, links in a circle
        raise DefinitionError(f"{where}: {path[:200]!r}: {error}") from error
    if not inside:
        raise DefinitionError(f"{where}: {path!r} is outside {folder}; use a path below it")
    if not there:
        raise DefinitionError(f"{where}: there is no file {path!r} in {folder}")
    return file


def _digest(path: str, file: Path, where: str) -> LocalFile:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return LocalFile(str(file), file.name, digest, file.stat().st_size)
    except OSError as error:
        raise DefinitionError(f"{where}: {path!r} cannot be read: {error}") from error


def _package(source: Source, where: str) -> Path:
    try:
        spec = importlib.util.find_spec(source.package)
    except (ImportError, ValueError) as error:
        raise DefinitionError(f"{where}: package {source.package!r}: {error}") from error
    if not spec or not spec.submodule_search_locations:
        raise DefinitionError(
            f"{where}: package {source.package!r} is not installed; install it with pip"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _image(name: str, project: Project, target: Target) -> Image:
    """An image is a reference, or known by the folder that it is built from."""
    given = target.images.get(name, "")
    base = project.folder / "images"
    folder = target.base / given if given else base / name
    try:
        if not folder.is_dir():
            return Image(given or name)
        if not given and not _below(folder, base):
            raise DefinitionError(f"image {name!r}: is a folder outside {base}")
        return Image(name, str(folder.absolute()), _folder_digest(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise DefinitionError(f"image {name[:200]!r}: {error}") from error


def _below(path: Path, folder: Path) -> bool:
    inside, top = path.resolve(), folder.resolve()
    return inside != top and inside.is_relative_to(top)


def _folder_digest(folder: Path) -> str:
    digest, total = hashlib.sha256(), 0
    for file in sorted(folder.rglob("*")):
        if _LEFT_OUT.intersection(file.relative_to(folder).parts) or not file.is_file():
            continue
        if not _below(file, folder):
            raise DefinitionError(f"image folder {folder}: {file} leads out of it; copy the file")
        total += file.stat().st_size
        if total > _LARGEST_IMAGE:
            raise DefinitionError(
                f"image folder {folder}: over {_LARGEST_IMAGE} bytes; keep data out of it"
            )
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


# -- staging


def stage(stores: Stores, staged: Iterable[Staged]) -> None:
    """Copy local files to their content-addressed keys; what is there already stays."""
    for item in staged:
        fs = stores(item.uri)
        with store_errors(item.uri):
            if fs.exists(item.uri) and fs.size(item.uri) == item.file.size:
                continue
            if item.content is not None:
                fs.pipe_file(item.uri, item.content)
                continue
            if _digest(item.file.path, Path(item.file.path), "staging").digest != item.file.digest:
                raise RunError(f"{item.file.path}: changed after the plan was made; run again")
            fs.put_file(item.file.path, item.uri)


# -- commit


def clear(fs: Any, action: Action) -> None:
    """Remove what an earlier attempt left, the commit first."""
    manifest = f"{action.home}/_manifest.json"
    with store_errors(action.home):
        if fs.exists(action.home):
            if fs.exists(manifest):
                fs.rm_file(manifest)
            fs.rm(action.home, recursive=True)


def commit(fs: Any, action: Action, attempt: int) -> dict[str, Any]:
    """List the outputs of a task that ended well and publish its manifest, which is returned.

    Committing the same attempt again returns the manifest that is there. Raises RunError
    when an output is missing or the value is no JSON.
    """
    path = f"{action.home}/_manifest.json"
    manifest: dict[str, Any] = {
        "task": action.subject,
        "attempt": attempt,
        "outputs": {name: listed(fs, name, uri) for name, uri in action.outputs.items()},
        "value": _value(fs, f"{action.home}/_result.json"),
    }
    data = json.dumps(manifest).encode()
    try:
        with store_errors(path):
            fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        there = read_manifest(fs, action.home)
        if there["attempt"] != attempt:
            raise RunError(
                f"{path}: attempt {there['attempt']} has committed, and attempt {attempt} ran too"
            ) from None
        return there
    return manifest


def read_manifest(fs: Any, home: str) -> dict[str, Any]:
    """Return the manifest of the task that writes under `home`. Raises NotFoundError."""
    path = f"{home}/_manifest.json"
    with store_errors(path):
        data = fs.cat_file(path)
    try:
        manifest: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no manifest: {error}; somebody else has written it") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= _MANIFEST:
        raise RunError(f"{path}: is no manifest; somebody else has written it")
    return manifest


def intact(fs: Any, action: Action) -> bool:
    """Whether the task is committed and its outputs are still what the manifest says."""
    try:
        manifest = read_manifest(fs, action.home)
        now = {name: listed(fs, name, uri) for name, uri in action.outputs.items()}
    except (NotFoundError, RunError):
        return False
    return bool(now == manifest["outputs"])


def listed(fs: Any, name: str, uri: str) -> dict[str, Any]:
    """What a manifest says of an output: its URI, its bytes, and each file with its checksum."""
    with store_errors(uri):
        found: Mapping[str, Mapping[str, Any]] = fs.find(uri, detail=True)
        if not found:
            raise RunError(
                f"output {name!r} is missing: the task ended well but wrote nothing under {uri}"
            )
        root = fs._strip_protocol(uri).rstrip("/")
        with ThreadPoolExecutor(8 if len(found) > 8 else 1) as pool:
            sums = pool.map(lambda item: _checksum(fs, *item), sorted(found.items()))
        files = [
            {"path": path[len(root) :].lstrip("/"), "size": found[path]["size"], "checksum": sum}
            for path, sum in zip(sorted(found), sums, strict=True)
        ]
    return {"uri": uri, "bytes": sum(f["size"] for f in files), "files": files}


def _checksum(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    """The provider's own where the listing has one, else sha256 of the content."""
    for key in ("ETag", "e_tag", "md5Hash", "crc32c"):
        if value := info.get(key):
            return f"{key.lower().replace('_', '')}:{str(value).strip(chr(34))}"
    with fs.open(path, "rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _value(fs: Any, path: str) -> Any:
    try:
        with store_errors(path):
            data = fs.cat_file(path)
    except NotFoundError:
        return None
    if len(data) > _LARGEST_VALUE:
        raise RunError(
            f"{path}: a task's value has at most {_LARGEST_VALUE} bytes, this one {len(data)}; "
            "write large data to an output"
        )
    try:
        value = json.loads(data)
        json.dumps(value, allow_nan=False)  # Python also reads NaN, and 1e999 as infinity
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: the task's value is no JSON: {error}") from error
    return value
