"""The specification of a pod: what is refused, what is filled in, what it asks for."""

from __future__ import annotations

import copy
import re
from fractions import Fraction
from typing import Any

from .problems import Causes, Json, bad_request

_NAME = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([EPTGMk]|[EPTGMK]i|m|u|n|[eE][+-]?\d+)?")
_UNITS = {
    "": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18), "Ki": Fraction(2**10), "Mi": Fraction(2**20),
    "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip
_POLICIES = ("Always", "OnFailure", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBED = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_VOLUMES = ("emptyDir", "configMap", "secret", "hostPath", "projected", "downwardAPI")


def quantity(value: Any) -> Fraction:
    """The number that "500m", "2Gi" or 3 stands for."""
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        raise bad_request(
            'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular '
            "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, unit = Fraction(match[1]), match[2] or ""
    if unit in _UNITS:
        return number * _UNITS[unit]
    return number * Fraction(10) ** int(unit[1:])


def containers(spec: Json) -> list[Json]:
    """All containers, those for the start first."""
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def requested(spec: Json) -> dict[str, Fraction]:
    """What a scheduler must find for a pod: the sum of its containers, or its largest init."""
    total: dict[str, Fraction] = {}
    for container in spec.get("containers") or []:
        for name, amount in _requests(container).items():
            total[name] = total.get(name, Fraction(0)) + amount
    for container in spec.get("initContainers") or []:
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, Fraction(0)), amount)
    return total


def _requests(container: Json) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {k: quantity(v) for k, v in merged.items()}


def check_pod_spec(spec: Json, at: str, causes: Causes) -> None:
    if not spec.get("containers"):
        causes.required(f"{at}.containers")
    if spec.get("schedulingGates"):
        causes.forbidden(f"{at}.schedulingGates", "not implemented by this stand-in")
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in _POLICIES:
        causes.unsupported(f"{at}.restartPolicy", policy, _POLICIES)
    for field, least in (("activeDeadlineSeconds", 1), ("terminationGracePeriodSeconds", 0)):
        value = spec.get(field)
        if value is not None and value < least:
            text = (
                "must be between 1 and 2147483647, inclusive" if least
                else "must be greater than or equal to 0"
            )  # fmt: skip
            causes.invalid(f"{at}.{field}", value, text)
    volumes: set[str] = set()
    for i, volume in enumerate(spec.get("volumes") or []):
        where = f"{at}.volumes[{i}]"
        name = volume.get("name", "")
        if not name:
            causes.required(f"{where}.name")
        elif name in volumes:
            causes.duplicate(f"{where}.name", name)
        volumes.add(name)
        kinds = [k for k, v in volume.items() if k != "name" and v is not None]
        if len(kinds) > 1:
            causes.forbidden(where, "may not specify more than 1 volume type")
        elif kinds and kinds[0] not in _VOLUMES:
            causes.forbidden(f"{where}.{kinds[0]}", "not implemented by this stand-in")
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(kind) or []):
            _check_container(container, f"{at}.{kind}[{i}]", names, volumes, causes)


def _check_container(
    container: Json, at: str, names: set[str], volumes: set[str], causes: Causes
) -> None:
    name = container.get("name", "")
    if not name:
        causes.required(f"{at}.name")
    elif not _NAME.fullmatch(name):
        causes.invalid(f"{at}.name", name, _NAME_TEXT)
    elif name in names:
        causes.duplicate(f"{at}.name", name)
    names.add(name)
    if not container.get("image"):
        causes.required(f"{at}.image")
    # To take it and do nothing would be to lie about how it lives and ends.
    if container.get("restartPolicy") is not None:
        causes.forbidden(f"{at}.restartPolicy", "not implemented by this stand-in")
    _check_handlers(container, at, causes)
    for field in ("command", "args"):
        if any(not isinstance(word, str) for word in container.get(field) or []):
            raise bad_request(
                "json: cannot unmarshal number into Go struct field "
                f"Container.{field} of type string"
            )
    for i, entry in enumerate(container.get("env") or []):
        if not entry.get("name"):
            causes.required(f"{at}.env[{i}].name")
        if not isinstance(entry.get("value") or "", str):
            raise bad_request(
                "json: cannot unmarshal number into Go struct field EnvVar.value of type string"
            )
        if entry.get("value") and entry.get("valueFrom"):
            text = "may not be specified when `value` is not empty"
            causes.invalid(f"{at}.env[{i}].valueFrom", "", text)
    for i, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name", "") not in volumes:
            causes.missing(f"{at}.volumeMounts[{i}].name", mount.get("name", ""))
        if not mount.get("mountPath"):
            causes.required(f"{at}.volumeMounts[{i}].mountPath")
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and quantity(amount) > quantity(limits[name]):
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.invalid(f"{at}.resources.requests", str(amount), text)
    for amount in [*limits.values(), *(resources.get("requests") or {}).values()]:
        if quantity(amount) < 0:
            text = "must be greater than or equal to 0"
            causes.invalid(f"{at}.resources", str(amount), text)


def _check_handlers(container: Json, at: str, causes: Causes) -> None:
    """What is asked of a container while it runs: of those for the start nothing is."""
    told = {k: container[k] for k in (*_PROBES, "lifecycle") if container.get(k) is not None}
    for name in told if ".initContainers[" in at else ():
        text = "may not be set for init containers without restartPolicy=Always"
        causes.forbidden(f"{at}.{name}", text)
    hooks = told.pop("lifecycle", None) or {}
    for name in ("postStart", "preStop"):
        if hooks.get(name) is not None:
            told[f"lifecycle.{name}"] = hooks[name]
    for name, handler in told.items():
        kinds = [k for k in (*_HANDLERS, "grpc") if handler.get(k) is not None]
        if not kinds:
            causes.required(f"{at}.{name}", "must specify a handler type")
        elif kinds[0] == "grpc":
            causes.forbidden(f"{at}.{name}.grpc", "not implemented by this stand-in")
        if name in ("livenessProbe", "startupProbe") and handler.get("successThreshold", 1) != 1:
            field = f"{at}.{name}.successThreshold"
            causes.invalid(field, handler["successThreshold"], "must be 1")


def default_pod_spec(spec: Json, namespace: str) -> Json:
    """Return `spec` with the API server's defaults; `namespace` "" leaves the account open."""
    spec = copy.deepcopy(spec)
    for field, value in (
        ("restartPolicy", "Always"), ("terminationGracePeriodSeconds", 30),
        ("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler"),
        ("securityContext", {}),
    ):  # fmt: skip
        if spec.get(field) is None:
            spec[field] = value
    if namespace:
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        spec.setdefault("enableServiceLinks", True)
    for container in containers(spec):
        container.setdefault("resources", {})
        limits = container["resources"].get("limits") if container["resources"] else None
        if limits:
            requests = container["resources"].get("requests") or {}
            container["resources"]["requests"] = {**limits, **requests}
        for name in _PROBES:
            if container.get(name) is not None:
                container[name] = {**_PROBED, **container[name]}
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        latest = ":" not in container["image"].rpartition("/")[2] or container["image"].endswith(
            ":latest"
        )
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for volume in spec.get("volumes") or []:
        if not any(k in volume for k in _VOLUMES):
            volume["emptyDir"] = {}
        for kind in ("configMap", "secret", "projected"):
            if isinstance(volume.get(kind), dict):
                volume[kind].setdefault("defaultMode", 0o644)
    return spec
