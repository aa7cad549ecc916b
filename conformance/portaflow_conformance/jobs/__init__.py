"""Spark jobs that the suite runs, and their way into the store of a target."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from portaflow.backend import ClusterSpec, Handle, JobSpec, State

from ..subject import MARK, Subject

ARGS = (
    "two  words", "", "}}", "{{ x }}", "'single' \"double\"", "back\\slash", "$HOME", "$(id)",
    "*", "-n", "--conf", "é 🚀", "#x", "a;b|c&d", "%s",
)  # fmt: skip
CONF = {
    "spark.conformance.spaces": "two  words, a comma",
    "spark.conformance.equals": "a=b",
    "spark.conformance.quotes": "'single' \"double\"",
    "spark.conformance.dollar": "$HOME",
}
ENV = {"CONFORMANCE_PLAIN": "1", "CONFORMANCE_ODD": "two  words, $HOME 'x' \"y\""}

_HERE = Path(__file__).parent


def staged(subject: Subject, name: str, content: bytes = b"") -> str:
    """The URI of a file of this folder, or of `content`, in the target's store."""

    def put() -> str:
        uri = f"{subject.prefix()}/{name}"
        subject.fs.pipe_file(uri, content or (_HERE / name).read_bytes())
        return uri

    return subject.shared(f"staged {name}", put)


def jar() -> bytes:
    """A jar that holds one resource and no class: Spark brings the classes that we call."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\n\r\n")
        archive.writestr("conformance-dependency.txt", "shipped\n")
    return data.getvalue()


def cluster_spec(subject: Subject, **fields: Any) -> ClusterSpec:
    return ClusterSpec(**{"owner": subject.owner, "ttl": 3600, "grace": 2, **fields})


def cluster(subject: Subject) -> Handle | None:
    """The cluster that checks share, running; None when the backend is serverless."""
    if subject.here.compute.clusters is None:
        return None

    def make() -> Handle:
        handle = subject.start("cluster", cluster_spec(subject))
        subject.wait("cluster", handle, State.RUNNING)
        return handle

    return subject.shared("cluster", make)


def job_spec(subject: Subject, main: str, *args: str, **fields: Any) -> JobSpec:
    env = {MARK: subject.owner, **fields.pop("env", {})}
    defaults: dict[str, Any] = {"owner": subject.owner, "ttl": 1800, "grace": 2}
    cloud = subject.here.compute.cloud
    conf = {**subject.here.store.spark_conf(cloud), **fields.pop("conf", {})}
    return JobSpec(
        **{**defaults, **fields}, main=staged(subject, main), args=args, env=env, conf=conf
    )


def job(subject: Subject, main: str, *args: str, **fields: Any) -> Handle:
    """Start a job on the shared cluster."""
    return subject.start("job", job_spec(subject, main, *args, **fields), parent=cluster(subject))
