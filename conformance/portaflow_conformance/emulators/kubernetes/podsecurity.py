"""The standards of pod security that a namespace can demand: baseline and restricted."""

from __future__ import annotations

from typing import Any

from .podspec import containers
from .problems import Json

LABEL = "pod-security.kubernetes.io/enforce"
_BASELINE = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_VOLUMES = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
)  # fmt: skip


def violations(level: str, spec: Json) -> list[str]:
    """Why a pod is not let in, in the words of the admission plugin."""
    if level not in ("baseline", "restricted"):
        return []
    found = _baseline(spec)
    return found + _restricted(spec) if level == "restricted" else found


def _named(spec: Json, bad: Any) -> str:
    names = [c["name"] for c in containers(spec) if bad(c.get("securityContext") or {}, c)]
    quoted = ", ".join(f'"{n}"' for n in names)
    return f"container{'s' if len(names) > 1 else ''} {quoted}" if names else ""


def _baseline(spec: Json) -> list[str]:
    found = []
    host = [f"{k}=true" for k in ("hostNetwork", "hostPID", "hostIPC") if spec.get(k)]
    if host:
        found.append(f"host namespaces ({', '.join(host)})")
    if who := _named(spec, lambda s, c: s.get("privileged")):
        found.append(f"privileged ({who} must not set securityContext.privileged=true)")
    if paths := [v["name"] for v in spec.get("volumes") or [] if v.get("hostPath")]:
        found.append(f"hostPath volumes (volume {', '.join(paths)})")
    if who := _named(spec, lambda s, c: set(_capabilities(s, "add")) - _BASELINE):
        found.append(f"non-default capabilities ({who} must not include more of them)")
    return found


def _capabilities(security: Json, which: str) -> list[str]:
    return (security.get("capabilities") or {}).get(which) or []


def _restricted(spec: Json) -> list[str]:
    found = []
    pod = spec.get("securityContext") or {}
    bad = [
        v["name"] for v in spec.get("volumes") or []
        if not any(v.get(kind) is not None for kind in _VOLUMES) and "emptyDir" not in v
    ]  # fmt: skip
    if bad:
        found.append(f"restricted volume types (volume {', '.join(bad)})")
    if who := _named(spec, lambda s, c: s.get("allowPrivilegeEscalation") is not False):
        text = f"{who} must set securityContext.allowPrivilegeEscalation=false"
        found.append(f"allowPrivilegeEscalation != false ({text})")
    if who := _named(spec, lambda s, c: not _dropped(s)):
        text = f'{who} must set securityContext.capabilities.drop=["ALL"]'
        found.append(f"unrestricted capabilities ({text})")
    if who := _named(spec, lambda s, c: not s.get("runAsNonRoot", pod.get("runAsNonRoot"))):
        text = f"pod or {who} must set securityContext.runAsNonRoot=true"
        found.append(f"runAsNonRoot != true ({text})")
    if who := _named(spec, lambda s, c: s.get("runAsUser", pod.get("runAsUser")) == 0):
        found.append(f"runAsUser=0 (pod or {who} must not set runAsUser=0)")
    if who := _named(spec, lambda s, c: _seccomp(s, pod) not in ("RuntimeDefault", "Localhost")):
        told = 'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        found.append(f"seccompProfile (pod or {who} must set {told})")
    return found


def _dropped(security: Json) -> bool:
    added = set(_capabilities(security, "add")) - {"NET_BIND_SERVICE"}
    return "ALL" in _capabilities(security, "drop") and not added


def _seccomp(security: Json, pod: Json) -> str:
    profile = security.get("seccompProfile") or pod.get("seccompProfile") or {}
    return str(profile.get("type", ""))
