"""What a Job and its pod say of themselves, as a status in words. Pure."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from portaflow.backend import Cause, State, Status

from .billed import quantity
from .manifest import END, MAIN

Json = Mapping[str, Any]

STOP = "stop"  # of an End: somebody asked for it
RUNNING = Status(state=State.RUNNING)

_SURE = 120.0  # seconds after which an image that is not told to be absent will not come
_SETTLING = 10.0  # seconds that a Secret or an account may come later than who needs it
_TAIL = 5  # lines of log told with a failure, but for where in a program of Java it was
_GONE = "its pod is gone: somebody has deleted it, or its node was lost"
_NO_EXECUTOR = "it has no executor"
_BEING_MADE = "its container is being made"
_TRACE = ("\tat ", "\t... ")
_ABSENT = re.compile(
    r"not found|manifest unknown|no such host|denied|unauthorized|forbidden|401|403|404"
    r"|does not exist|invalid reference|name unknown",
    re.IGNORECASE,
)
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_TAKEN = {
    "PreemptionByScheduler": (Cause.PREEMPTED, "a pod of higher priority took its place"),
    "DeletionByTaintManager": (Cause.INFRA, "its node was lost or is being emptied"),
    "EvictionByEvictionAPI": (Cause.INFRA, "its node is being emptied"),
    "DeletionByPodGC": (Cause.INFRA, "its node is gone"),
    "TerminationByKubelet": (Cause.INFRA, "its node had not enough left for it, or shuts down"),
}  # fmt: skip
_QUOTA = re.compile(r"exceeded quota: \S+, requested: (\S+), used: \S+, limited: (\S+)")
_OVER_DISK = re.compile(r"exceed\w* .*(ephemeral|emptyDir|disk)|(ephemeral|disk).* exceed", re.I)


@dataclass(frozen=True, slots=True)
class End:
    """Why portaflow ended a Job; kept with the Job, so that any process can tell."""

    why: str  # STOP, or the reason why it could never run
    cause: str = ""  # of such a reason

    def to_json(self) -> str:
        return json.dumps({"why": self.why, "cause": self.cause})

    @classmethod
    def of(cls, job: Json) -> End | None:
        text = (job["metadata"].get("annotations") or {}).get(END)
        return cls(**json.loads(text)) if text else None


def conditions(thing: Json) -> dict[str, Json]:
    """The conditions that hold, by type."""
    rows = (thing.get("status") or {}).get("conditions") or ()
    return {row["type"]: row for row in rows if row.get("status") == "True"}


def ended(job: Json) -> bool:
    """Whether a Job has ended, and its pod with it."""
    status, holds = job.get("status") or {}, conditions(job)
    if "Complete" in holds:
        return True
    return "Failed" in holds and not status.get("active") and not status.get("terminating")


def pending(pod: Json) -> bool:
    return bool(_status(pod).get("phase") == "Pending")


def running(job: Json) -> bool:
    """Whether the Job by itself says that its pod works: no other word is needed."""
    return bool((job.get("status") or {}).get("ready"))


def of_ended(job: Json, pod: Json | None) -> Status:
    """How a Job ended. `pod` is None when nobody knows it any more."""
    holds = conditions(job)
    if "Complete" in holds:
        return Status(state=State.SUCCEEDED, exit_code=0)
    why, run = holds["Failed"], _terminated(pod)
    code = run.get("exitCode")
    if "DeadlineExceeded" in (why.get("reason"), _status(pod).get("reason")):
        return _of_deadline(job, run)
    if code is not None and code == 0 and not _status(pod).get("reason"):
        return Status(state=State.SUCCEEDED, exit_code=0)
    cause, reason = _of_pod(pod, run) if pod else _of_none(why)
    return Status(state=State.FAILED, reason=reason, exit_code=code, cause=cause)


def _of_deadline(job: Json, run: Json) -> Status:
    end, code = End.of(job), run.get("exitCode")
    if end and end.why != STOP:
        return Status(state=State.FAILED, reason=end.why, cause=Cause(end.cause))
    ttl = job["spec"].get("activeDeadlineSeconds")
    over = "it was asked to stop" if end else f"its time-to-live of {ttl} s was over"
    return Status(state=State.STOPPED, reason=_with_tail(over, run), exit_code=code)


def _of_pod(pod: Json, run: Json) -> tuple[Cause, str]:
    """Cause and reason of a pod's failure."""
    status = _status(pod)
    reason, message = status.get("reason") or "", status.get("message") or ""
    if taken := conditions(pod).get("DisruptionTarget"):
        cause, words = _TAKEN.get(taken.get("reason", ""), (Cause.INFRA, "it was taken away"))
        if _OVER_DISK.search(message):
            return Cause.USER, f"it used more than its disk: {message}"
        return cause, _joined(f"its pod was ended from outside: {words}", reason, message)
    if reason:  # of a pod that its node refused or gave up
        cause = Cause.CAPACITY if reason.startswith(("OutOf", "UnexpectedAdm")) else Cause.INFRA
        if reason == "Evicted" and _OVER_DISK.search(message):
            return Cause.USER, f"it used more than its disk: {message}"
        return cause, _joined("its node has given it up", reason, message)
    if _deleted(pod, run):
        return Cause.INFRA, _GONE
    return _of_process(pod, run)


def _deleted(pod: Json, run: Json) -> bool:
    """Whether a pod was deleted before it had ended; it is to be seen until its Job has failed."""
    meta, ended = pod["metadata"], run.get("finishedAt")
    if not (until := meta.get("deletionTimestamp")):
        return False
    asked = datetime.fromisoformat(until)
    asked -= timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)
    return not ended or datetime.fromisoformat(ended) >= asked


def _of_process(pod: Json, run: Json) -> tuple[Cause, str]:
    code, why = run.get("exitCode"), run.get("reason")
    if code is None:
        return Cause.INFRA, "its pod has failed before its command ran"
    if why == "OOMKilled":
        limit = _main(pod["spec"]).get("resources", {}).get("limits", {}).get("memory")
        return Cause.USER, f"out of memory: it used more than its {limit}; {_exit(code)}"
    if why in ("StartError", "ContainerCannotRun"):
        return Cause.USER, f"its command cannot be started: {run.get('message', '')}"
    return Cause.USER, _with_tail(_exit(code), run)


def _of_none(why: Json) -> tuple[Cause, str]:
    if why.get("reason") == "PodFailurePolicy":
        text = "its pod was taken away: preempted, evicted, or its node was lost"
        return Cause.INFRA, _joined(text, "", why.get("message") or "")
    return Cause.INFRA, _joined(_GONE, why.get("reason") or "", why.get("message") or "")


def of_pending(
    job: Json, pod: Json | None, warning: str, waited: float
) -> tuple[Status, End | None]:
    """Why a Job does not run yet; and when it never will, why it is to be ended.

    `warning` is what the cluster last complained of, `waited` since when we have seen it wait.
    """
    if End.of(job):
        return Status(state=State.RUNNING, reason="it is being ended"), None
    if (job["spec"] or {}).get("suspend"):
        return _pending("suspended by somebody, such as a queue"), None
    if pod is None:
        return _of_missing_pod(warning, waited)
    if not pending(pod):
        return RUNNING, None
    scheduled = _false(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        reason = f"no node takes it: {scheduled.get('message', '')}"
        return Status(state=State.PENDING, reason=reason, cause=Cause.CAPACITY), None
    waiting = _waiting(pod)
    why, message = waiting.get("reason") or "", waiting.get("message") or ""
    if why in _IMAGE:
        return _of_image(pod, why, message or warning, waited)
    if why in ("CreateContainerConfigError", "CreateContainerError"):
        reason = f"its container cannot be made: {message}; {_config_fix(message)}"
        end = End(reason, Cause.USER.value) if waited > _SETTLING else None
        return _pending(reason), end
    return _pending(warning or _BEING_MADE), None


def of_executors(
    job: Json, pods: Sequence[Json], refusal: str, waited: float
) -> tuple[Status, End | None]:
    """What to tell of a job whose driver runs: it waits as a container does, for executors.

    With one at work it is at work, and what the others wait for is only told. `refusal` is why the
    cluster makes none.
    """
    if End.of(job):
        return RUNNING, None
    if not pods:
        status, end = _of_missing_pod(refusal, waited)
        reason = f"{_NO_EXECUTOR}: {refusal}"
        return (replace(status, reason=reason), end) if refusal else (RUNNING, None)
    waits = [(pod, *of_pending(job, pod, "", waited)) for pod in pods if pending(pod)]
    telling = [row for row in waits if row[1].reason != _BEING_MADE]
    if not telling:
        return RUNNING, None
    pod, status, end = telling[0]
    reason = f"executor {pod['metadata']['name']}: {status.reason}"
    if len(waits) < len(pods):
        return replace(RUNNING, reason=reason), None
    return replace(status, reason=reason), end if len(telling) == len(waits) else None


def of_refused(status: Status, refusal: str) -> Status:
    """The end of a driver that has given up: the cluster has refused its executors."""
    waits, end = _of_missing_pod(refusal, math.inf)
    cause = Cause(end.cause) if end else waits.cause or status.cause
    return replace(status, reason=f"{_NO_EXECUTOR}: {refusal}", cause=cause)


def _of_missing_pod(warning: str, waited: float) -> tuple[Status, End | None]:
    if "exceeded quota" in warning:
        why = f"its pod cannot be made: {warning}; make its size smaller, or ask for a larger quota"
        end = End(why, Cause.USER.value) if _never_fits(warning) else None
        return Status(state=State.PENDING, reason=warning, cause=Cause.CAPACITY), end
    hopeless = "forbidden" in warning or "serviceaccount" in warning
    end = End(f"its pod cannot be made: {warning}", Cause.DENIED.value)
    return _pending(warning), end if hopeless and waited > _SETTLING else None


def _never_fits(warning: str) -> bool:
    """Whether a quota gives less to all together than is asked of it: nobody's end helps."""
    found = _QUOTA.search(warning)
    if not found:
        return False
    asked, limited = (dict(one.partition("=")[::2] for one in g.split(",")) for g in found.groups())
    pairs = [(quantity(asked[key]), quantity(limited.get(key))) for key in asked]
    return any(one is not None and other is not None and one > other for one, other in pairs)


def _of_image(pod: Json, why: str, message: str, waited: float) -> tuple[Status, End | None]:
    image = _main(pod["spec"]).get("image")
    reason = _joined(f"image {image!r} cannot be had", why, message)
    absent = why not in ("ErrImagePull", "ImagePullBackOff") or _ABSENT.search(message)
    reason += "; see its name, the registry, and image_pull_secrets"
    cause = Cause.USER if absent else Cause.INFRA
    return _pending(reason), End(reason, cause.value) if absent or waited > _SURE else None


def _config_fix(message: str) -> str:
    if "non-root" in message or "runAsNonRoot" in message:
        return "set run_as_user to a number that is not 0, or to 0 for root"
    return "make what is missing, in the namespace of the Job"


# -- parts of objects


def _pending(reason: str) -> Status:
    return Status(state=State.PENDING, reason=reason)


def _status(pod: Json | None) -> Json:
    return (pod or {}).get("status") or {}


def _false(pod: Json, type_: str) -> Json:
    rows = _status(pod).get("conditions") or ()
    return next((r for r in rows if r["type"] == type_ and r["status"] == "False"), {})


def _main(spec: Json) -> Json:
    return next((c for c in spec["containers"] if c["name"] == MAIN), {})


def _state(pod: Json | None) -> Json:
    rows = _status(pod).get("containerStatuses") or ()
    return next((r.get("state") or {} for r in rows if r["name"] == MAIN), {})


def _terminated(pod: Json | None) -> Json:
    return _state(pod).get("terminated") or {}


def _waiting(pod: Json) -> Json:
    """Why the container waits, or one that runs before it."""
    first = [r.get("state") or {} for r in _status(pod).get("initContainerStatuses") or ()]
    for state in [_state(pod), *first]:
        waiting: Json = state.get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return waiting
    return {}


# -- words


def _exit(code: int) -> str:
    if code <= 128:
        return f"exit code {code}"
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return f"exit code {code}"
    hint = ": killed from outside" if name == "SIGKILL" else ""
    return f"exit code {code} ({name}){hint}"


def _with_tail(reason: str, run: Json) -> str:
    lines = str(run.get("message") or "").strip().splitlines()
    telling = [line for line in lines if not line.startswith(_TRACE)]
    return "\n".join([reason, *telling[-_TAIL:]])[:2000]


def _joined(text: str, reason: str, message: str) -> str:
    return ": ".join(filter(None, (text, " ".join(filter(None, (reason, message))))))
