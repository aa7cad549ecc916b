"""What a run reads and writes: nothing from outside its folder, nothing half committed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.folder import FolderFileSystem

from portaflow import CallTask, ContainerTask, Pipeline, Source, SparkTask
from portaflow.data import clear, collect, commit, intact, read_manifest, stage
from portaflow.errors import (
    DefinitionError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RunError,
    UnavailableError,
)
from portaflow.load import Project
from portaflow.plan import Action, Local, source_key
from portaflow.specs import Asks
from portaflow.target import Target


@pytest.fixture
def fs(tmp_path: Path) -> FolderFileSystem:
    return FolderFileSystem(root=str(tmp_path))


@pytest.fixture
def action(tmp_path: Path) -> Action:
    home = f"file://{tmp_path}/p/r/a"
    return Action(
        id="a", verb="start", kind="container", subject="a", home=home,
        outputs={"one": f"{home}/one", "two": f"{home}/two"},
    )  # fmt: skip


def fill(fs: Any, action: Action, value: bytes | None = b'{"rmse": 0.9}') -> None:
    fs.pipe_file(f"{action.home}/one/x.csv", b"abc")
    fs.pipe_file(f"{action.home}/one/deep/y.csv", b"")
    fs.pipe_file(f"{action.home}/two/z", b"z")
    if value is not None:
        fs.pipe_file(f"{action.home}/_result.json", value)


# -- commit


def test_a_manifest_names_every_file_with_size_and_checksum(fs: Any, action: Action) -> None:
    fill(fs, action)
    manifest = commit(fs, action, 1)
    assert manifest == read_manifest(fs, action.home)
    assert (manifest["task"], manifest["attempt"], manifest["value"]) == ("a", 1, {"rmse": 0.9})
    one = manifest["outputs"]["one"]
    assert (one["uri"], one["bytes"]) == (f"{action.home}/one", 3)
    assert [(f["path"], f["size"]) for f in one["files"]] == [("deep/y.csv", 0), ("x.csv", 3)]
    assert one["files"][1]["checksum"] == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_committing_again_changes_nothing(fs: Any, action: Action) -> None:
    fill(fs, action)
    first = commit(fs, action, 1)
    fs.pipe_file(f"{action.home}/one/late", b"late")
    assert commit(fs, action, 1) == first


def test_a_second_attempt_cannot_commit_over_the_first(fs: Any, action: Action) -> None:
    fill(fs, action)
    commit(fs, action, 1)
    with pytest.raises(RunError, match="attempt 1 has committed, and attempt 2 ran too"):
        commit(fs, action, 2)


def test_an_output_that_is_missing_is_told_and_not_committed(fs: Any, action: Action) -> None:
    fill(fs, action)
    fs.rm(f"{action.home}/two", recursive=True)
    with pytest.raises(RunError, match=r"output 'two' is missing: .* wrote nothing under file://"):
        commit(fs, action, 1)
    with pytest.raises(NotFoundError):
        read_manifest(fs, action.home)


def test_a_task_need_not_have_a_value(fs: Any, action: Action) -> None:
    fill(fs, action, value=None)
    assert commit(fs, action, 1)["value"] is None


@pytest.mark.parametrize("value", ["3", '"x"', "null", "[1, {}]", '"\\ud800"', '{"a": 1e300}'])
def test_any_json_is_a_value(fs: Any, action: Action, value: str) -> None:
    fill(fs, action, value.encode())
    commit(fs, action, 1)
    assert read_manifest(fs, action.home)["value"] == json.loads(value)


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"nope", b"NaN", b'{"x": [NaN]}', b"Infinity", b"-Infinity", b"1e999", b"\xff",
     b"{'a': 1}", b"9" * 5000, b"[" * 100_000],
    ids=range(12),
)  # fmt: skip
def test_a_value_that_is_no_json_is_told_and_not_committed(
    fs: Any, action: Action, value: bytes
) -> None:
    fill(fs, action, value)
    with pytest.raises(RunError, match=r"_result\.json: the task's value is no JSON: "):
        commit(fs, action, 1)
    with pytest.raises(NotFoundError):
        read_manifest(fs, action.home)


def test_a_value_that_is_large_is_told(fs: Any, action: Action) -> None:
    fill(fs, action, json.dumps("x" * 256 * 1024).encode())
    with pytest.raises(RunError, match="a task's value has at most 262144 bytes, this one 262146"):
        commit(fs, action, 1)


def test_clearing_takes_the_commit_and_all_else(fs: Any, action: Action) -> None:
    fill(fs, action)
    commit(fs, action, 1)
    clear(fs, action)
    clear(fs, action)  # what is not there is cleared
    assert fs.find(action.home) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda home: (home / "one/x.csv").write_bytes(b"abd"),
        lambda home: (home / "one/x.csv").unlink(),
        lambda home: (home / "two/z").unlink(),
        lambda home: (home / "two/more").write_bytes(b""),
        lambda home: (home / "_manifest.json").unlink(),
        lambda home: (home / "_manifest.json").write_bytes(b"["),
        lambda home: (home / "_manifest.json").write_bytes(b"[]"),
        lambda home: (home / "_manifest.json").write_bytes(b"{}"),
        lambda home: (home / "_manifest.json").write_bytes(b"[" * 100_000),
    ],
    ids=range(9),
)
def test_what_changed_after_the_commit_is_not_intact(
    fs: Any, action: Action, change: Callable[[Path], None]
) -> None:
    fill(fs, action)
    commit(fs, action, 1)
    assert intact(fs, action)
    change(Path(action.home.removeprefix("file://")))
    assert not intact(fs, action)


@pytest.mark.parametrize(
    ("raised", "told", "text"),
    [
        (PermissionError("no"), DeniedError, "the store refuses"),
        (OSError(errno.ENOSPC, "No space left"), QuotaError, "the store is full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), QuotaError, "the store is full"),
        (OSError(errno.EIO, "broken"), UnavailableError, "the store fails"),
    ],
)
def test_a_store_that_fails_is_told_with_the_key(
    tmp_path: Path, action: Action, raised: OSError, told: type[Exception], text: str
) -> None:
    class Fails(FolderFileSystem):
        def pipe_file(self, path: str, value: bytes, mode: str = "", **kwargs: Any) -> None:
            raise raised

    fill(FolderFileSystem(root=str(tmp_path)), action)
    fs = Fails(root=str(tmp_path), skip_instance_cache=True)
    with pytest.raises(told, match=rf"_manifest\.json: {text}"):
        commit(fs, action, 1)


# -- collect


FOLDER: dict[str, str] = {
    "job.py": "1", "lib.py": "2", "data.csv": "3", "call.py": "4", "images/train/Dockerfile": "5",
    "images/train/requirements.txt": "", "images/train/.git/x": "6",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, text in FOLDER.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "secret.py").write_text("outside")
    return folder


def target(tmp_path: Path, **settings: Any) -> Target:
    body = {"name": "t", "base": tmp_path, "store": {"backend": "folder"}, **settings}
    return Target.model_validate(body)


def collected(folder: Path, *tasks: Any, where: Target | None = None, **rest: Any) -> Local:
    pipeline = Pipeline(name="p", tasks=tasks or (ContainerTask(id="c", image="x"),), **rest)
    project = Project(pipeline, folder, folder / "pipeline.py")
    return collect(project, where or target(folder.parent))


def spark(**rest: Any) -> SparkTask:
    return SparkTask(id="a", **{"main": "job.py", **rest})


def test_every_local_file_is_digested_and_a_uri_is_not(folder: Path) -> None:
    local = collected(
        folder,
        spark(py_files=["lib.py", "s3://b/x.zip"]),
        CallTask(id="b", function="call.py:f"),
        ContainerTask(id="c", image="train"),
        ContainerTask(id="d", image="ghcr.io/x/y:1"),
        sources={"s": Source(path="data.csv"), "u": Source(uri="s3://b/k")},
    )
    assert sorted(local.files) == ["job.py", "lib.py", source_key("s")]
    assert local.files["job.py"].path == str(folder / "job.py")
    assert local.files["job.py"].size == 1
    assert local.images["ghcr.io/x/y:1"].context == ""
    assert local.images["train"].context == str(folder / "images/train")


def test_the_digest_of_an_image_follows_its_content_and_names(folder: Path) -> None:
    def digest() -> str:
        return collected(folder, ContainerTask(id="c", image="train")).images["train"].digest

    first = digest()
    (folder / "images/train/.git/x").write_text("other")
    assert digest() == first
    (folder / "images/train/Dockerfile").rename(folder / "images/train/Containerfile")
    assert digest() != first


def test_a_source_of_the_target_is_relative_to_its_file(folder: Path, tmp_path: Path) -> None:
    """Also when the pipeline has a file of the same path."""
    (tmp_path / "job.py").write_text("the target's")
    where = target(tmp_path, sources={"s": "job.py"})
    local = collected(folder, spark(), where=where, sources={"s": Source(path="data.csv")})
    assert local.files["job.py"].path == str(folder / "job.py")
    assert local.files[source_key("s")].path == str(tmp_path / "job.py")


def test_what_a_target_changes_in_a_task_is_collected(folder: Path, tmp_path: Path) -> None:
    where = target(tmp_path, tasks={"a": {"main": "lib.py"}})
    assert sorted(collected(folder, spark(), where=where).files) == ["lib.py"]


def test_a_file_of_a_package_is_found(folder: Path) -> None:
    local = collected(folder, sources={"s": Source(package="portaflow", path="py.typed")})
    assert local.files[source_key("s")].name == "py.typed"


def refusal(folder: Path, *tasks: Any, **rest: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        collected(folder, *tasks, **rest)
    told = str(caught.value)
    assert told.startswith(f"{folder / 'pipeline.py'}: ")
    return told


@pytest.mark.parametrize(
    "path",
    ["../secret.py", "/etc/passwd", "images/../../secret.py", "link.py", "way/secret.py", "loop",
     "nothing.py", "images", "", ".", "a\0b", "x" * 5000, "job.py/x", "pipe"],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder_or_to_nothing(folder: Path, path: str) -> None:
    (folder / "link.py").symlink_to("../secret.py")
    (folder / "way").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    assert "task 'a'" in refusal(folder, spark(main=path))
    assert "task 'a'" in refusal(folder, spark(py_files=[path]))
    assert "task 'a'" in refusal(folder, spark(jars=[path]))
    if path:
        assert "source 's'" in refusal(folder, sources={"s": Source(path=path)})
        assert "source 's'" in refusal(
            folder, sources={"s": Source(path=path, package="portaflow")}
        )


@pytest.mark.parametrize("path", ["../secret.py", "nothing.py"])
def test_no_call_leads_out_of_the_folder(folder: Path, path: str) -> None:
    assert "task 'a'" in refusal(folder, CallTask(id="a", function=f"{path}:f"))


@pytest.mark.parametrize("package", ["nothing_of_that_name", "json.decoder", "..", "a\0b", "sys"])
def test_a_package_that_is_none_is_told(folder: Path, package: str) -> None:
    assert "package" in refusal(folder, sources={"s": Source(path="x", package=package)})


@pytest.mark.parametrize("image", ["../..", "/etc", "..", ".", "out", "train/../../.."])
def test_no_image_is_a_folder_outside(folder: Path, image: str) -> None:
    (folder / "images/out").symlink_to("/etc")
    assert "is a folder outside" in refusal(folder, ContainerTask(id="c", image=image))


def test_no_link_in_an_image_leads_out_of_it(folder: Path) -> None:
    (folder / "images/train/link").symlink_to("../../../secret.py")
    assert "leads out of it" in refusal(folder, ContainerTask(id="c", image="train"))


def test_an_image_folder_is_not_for_data(folder: Path) -> None:
    (folder / "images/train/data").touch()
    os.truncate(folder / "images/train/data", 2**30)
    assert "keep data out of it" in refusal(folder, ContainerTask(id="c", image="train"))


# -- staging


def test_a_file_is_staged_by_its_content_once(folder: Path, tmp_path: Path, fs: Any) -> None:
    local = collected(folder, spark(), sources={"s": Source(path="data.csv")})
    asks = _asks(folder, local, tmp_path)
    stage(lambda uri: fs, asks.staged.values())
    (staged,) = asks.staged
    assert fs.cat_file(staged) == b"1"
    fs.pipe_file(staged, b"2")  # the same size: it is not looked at again
    stage(lambda uri: fs, asks.staged.values())
    assert fs.cat_file(staged) == b"2"


def test_a_file_that_changed_after_the_plan_is_not_staged(
    folder: Path, tmp_path: Path, fs: Any
) -> None:
    asks = _asks(folder, collected(folder, spark()), tmp_path)
    (folder / "job.py").write_text("changed")
    with pytest.raises(RunError, match=r"job\.py: changed after the plan was made; run again"):
        stage(lambda uri: fs, asks.staged.values())


def test_a_file_that_a_backend_brings_is_staged_by_its_content_once(
    folder: Path, tmp_path: Path, fs: Any
) -> None:
    asks = _asks(folder, collected(folder, spark()), tmp_path)
    uri = asks.brought("", {"run.py": b"launch"})["run.py"]
    assert uri.endswith(f"/_staged/{hashlib.sha256(b'launch').hexdigest()}/run.py")
    stage(lambda uri: fs, asks.staged.values())
    assert fs.cat_file(uri) == b"launch"
    fs.pipe_file(uri, b"lAUNCH")  # the same size: it is not looked at again
    stage(lambda uri: fs, asks.staged.values())
    assert fs.cat_file(uri) == b"lAUNCH"


def _asks(folder: Path, local: Local, tmp_path: Path) -> Asks:
    from portaflow.plan import Run
    from portaflow.plugins import Backends

    pipeline = Pipeline(name="p", tasks=(spark(),))
    where = target(tmp_path, compute={"backend": "spark-local"})
    asks = Asks(pipeline, where, Run(id="r"), Backends(where), local)
    asks.task(pipeline.tasks[0])
    return asks
