"""Secrets of Secret Manager among the variables of a job's driver.

Dataproc hands none to its jobs. So the main file of a job with secrets is a launcher of ours,
which asks for each with the rights of the job's service account and then becomes the user's
file: a value is in the memory of the driver's machine alone.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from portaflow.backend import Fit, JobSpec, Verdict
from portaflow.errors import RejectedError

FAILED = "secreterror: "  # how the launcher says that one cannot be read, in small letters
_LAUNCHER = "portaflow_launcher.py"  # its name in the store: no other file of a job has it
_NAME = re.compile(r"(projects/[\w:.-]+/secrets/)?[\w-]{1,255}(/versions/\w+)?", re.ASCII)
_JAR = (
    "Dataproc hands no secrets to jobs, and a jar cannot be launched with them; let it read them "
    "from Secret Manager itself, with the rights of its service account"
)


def files(spec: JobSpec) -> Mapping[str, bytes]:
    """What must be in the store for a job."""
    return {_LAUNCHER: _launcher()} if spec.secrets and not of_jar(spec) else {}


@functools.cache
def _launcher() -> bytes:
    return Path(__file__).with_name("launcher.py").read_bytes()


def fit(spec: JobSpec) -> Mapping[str, Fit]:
    if not spec.secrets:
        return {}
    if of_jar(spec):
        return {"secrets": Fit(Verdict.REFUSED, _JAR)}
    why = "the driver's Python alone has them, no executor"
    return {"secrets": Fit(Verdict.APPROXIMATED, why)}


def launched(name: str, spec: JobSpec) -> JobSpec:
    """What is to run for a job: itself, or the launcher when it has secrets.

    Raises RejectedError.
    """
    if not spec.secrets:
        return spec
    if of_jar(spec):
        raise RejectedError(f"job {name!r}: {_JAR}")
    for secret in spec.secrets.values():
        if not _NAME.fullmatch(secret):
            raise RejectedError(
                f"secret {secret!r}: say the name of a secret of Google's, or "
                "projects/PROJECT/secrets/NAME"
            )
    if _LAUNCHER not in spec.files:
        raise RejectedError(f"job {name!r}: its secrets need {_LAUNCHER} in the store")
    given = (f"{variable}={secret}" for variable, secret in spec.secrets.items())
    return replace(
        spec,
        main=spec.files[_LAUNCHER],
        args=(*given, "--", spec.main, *spec.args),
        py_files=(spec.main, *spec.py_files),
    )


def advice(work: Any) -> str:
    """What may help when a job has failed whose output is not at hand; "" without secrets.

    `work`: what Dataproc knows of a job of Python's.
    """
    if not work.main_python_file_uri.endswith(f"/{_LAUNCHER}"):
        return ""
    given = itertools.takewhile(lambda word: word != "--", work.args)
    names = ", ".join(repr(word.partition("=")[2]) for word in given)
    return (
        f"if its log tells of a SecretError: Secret Manager must have its secrets ({names}), and "
        "its service account needs the role roles/secretmanager.secretAccessor"
    )


def of_jar(spec: JobSpec) -> bool:
    return spec.main.partition("?")[0].endswith(".jar")
