"""What is said of a container, as a Kubernetes Job. Pure.

The Job is all that there is: its labels say whose it is, its deadline is its time-to-live,
and the cluster removes it some time after its end, with its pod and its log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from portaflow.backend import Request, Size, Spec
from portaflow.errors import RejectedError

from . import images

Json = dict[str, Any]

OWNER = "portaflow.owner"  # labels
NAME = "portaflow.name"
KIND = "portaflow.kind"
REQUEST = "portaflow.request"  # annotation: digest of the request that a Job was made from
END = "portaflow.end"  # annotation: why it was ended, see jobs.py
GPU = "nvidia.com/gpu"
MAIN = "main"  # the container whose end is the Job's


def job(name: str, kind: str, spec: Spec, pod: Mapping[str, Any], keep: int) -> Json:
    """A Job that runs one pod once, and never again."""
    labels = {OWNER: spec.owner, NAME: name, KIND: kind}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": spec.ttl,
            "ttlSecondsAfterFinished": keep,
            # Kept in the Job's own status: of a pod that was taken away nothing else is left.
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]},
                ]
            },
            "template": merged({"metadata": {"labels": labels}}, pod),
        },
    }


def container(
    image: str,
    words: Mapping[str, Sequence[str]],
    env: Mapping[str, str],
    secrets: Mapping[str, str],
    resources: Mapping[str, Any],
) -> Json:
    """The container that does the work; `words` are its command and args."""
    if not images.legal(image):
        raise RejectedError(
            f"image {image!r}: no cluster takes such a name; say REGISTRY/NAME:TAG in the target"
        )
    given: list[Json] = [{"name": k, "value": literal(v)} for k, v in env.items()]
    return {
        "name": MAIN,
        "image": image,
        **{key: [literal(w) for w in value] for key, value in words.items() if value},
        "env": given + [_secret(variable, name) for variable, name in secrets.items()],
        "resources": dict(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last lines of a failure, with its status; but of a secret's they may be made.
        "terminationMessagePolicy": "File" if secrets else "FallbackToLogsOnError",
    }


def user(number: int) -> Json:
    """The security context of a pod: 0 is root, -1 the image's own user unless that is root."""
    context: Json = {"runAsNonRoot": number != 0, "seccompProfile": {"type": "RuntimeDefault"}}
    if number >= 0:
        context |= {"runAsUser": number, "runAsGroup": number, "fsGroup": number}
    return context


def resources(size: Size) -> Json:
    """Requests and limits alike: what is promised is what is enforced."""
    amounts = {"cpu": f"{round(size.cpu * 1000)}m", "memory": f"{round(size.memory * 1024)}Mi"}
    if size.disk != Size().disk:  # the default asks for no disk of its own
        amounts["ephemeral-storage"] = f"{round(size.disk * 1024)}Mi"
    if size.gpu:
        amounts[GPU] = str(size.gpu)
    return {"requests": amounts, "limits": dict(amounts)}


def literal(text: str) -> str:
    """`text` as it must be written so that nothing in it is expanded."""
    return text.replace("$", "$$")


def _secret(variable: str, name: str) -> Json:
    """A variable with the value of a Secret: "name", or "name/key" when it has several keys."""
    secret, _, key = name.partition("/")
    if not secret or not all(c.isalnum() or c in "-." for c in secret):
        raise RejectedError(f"secret {name!r}: say the name of a Secret, or name/key")
    reference = {"name": secret, "key": key or "value"}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """`over` laid on `base`: tables key by key, lists of named things name by name."""
    result = dict(base)
    for key, value in over.items():
        result[key] = _laid(result[key], value) if key in result else value
    return result


def _laid(base: Any, over: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return merged(base, over)
    if not _named(base) or not _named(over):
        return over
    rows = {row["name"]: row for row in base}
    for row in over:
        rows[row["name"]] = merged(rows.get(row["name"], {}), row)
    return list(rows.values())


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, Mapping) and "name" in v for v in value)


def digest(request: Request) -> str:
    text = json.dumps(request, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
