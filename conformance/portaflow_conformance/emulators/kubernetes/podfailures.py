"""What a Job's podFailurePolicy says of a pod that failed."""

from __future__ import annotations

from dataclasses import dataclass

from .problems import Json


@dataclass(frozen=True, slots=True)
class Verdict:
    """`action`: "Count" as a failure, "Ignore" it, or "FailJob"."""

    action: str = "Count"
    message: str = ""


def judge(job: Json, pod: Json) -> Verdict:
    """The first rule that matches decides; none is "Count"."""
    meta = pod["metadata"]
    where = f"pod {meta['namespace']}/{meta['name']}"
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or []
    for number, rule in enumerate(rules):
        told = _exit_code(rule.get("onExitCodes"), pod, where) or _condition(
            rule.get("onPodConditions") or [], pod, where
        )
        if told:
            message = f"{told} matching {rule['action']} rule at index {number}"
            return Verdict(rule["action"], message)
    return Verdict()


def _exit_code(wanted: Json | None, pod: Json, where: str) -> str:
    if wanted is None:
        return ""
    status = pod["status"]
    for one in [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]:
        code = ((one.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
        if code == 0 or wanted.get("containerName") not in (None, one["name"]):
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            return f"Container {one['name']} for {where} failed with exit code {code}"
    return ""


def _condition(patterns: list[Json], pod: Json, where: str) -> str:
    for condition in pod["status"].get("conditions") or []:
        for pattern in patterns:
            same = pattern["type"] == condition["type"]
            if same and pattern.get("status", "True") == condition["status"]:
                return f"Pod {where.removeprefix('pod ')} has condition {pattern['type']}"
    return ""
