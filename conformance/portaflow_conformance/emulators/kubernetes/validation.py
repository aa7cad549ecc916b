"""What the API server refuses in a new object, and what it fills in."""

from __future__ import annotations

import base64
import binascii
import copy
import random
import re
import uuid
from collections.abc import Callable

from .podspec import check_pod_spec, default_pod_spec
from .problems import Causes, Json, bad_request
from .resources import JOBS, NAMESPACES, PODS, SECRETS, SERVICES, Resource

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LABEL = re.compile(_LABEL)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE = re.compile("(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
    "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_RANDOM = "bcdfghjklmnpqrstvwxz2456789"  # the letters of generated names
ADDRESS = "127.0.0.1"  # of all pods, and so of what is in front of them
_ANNOTATIONS = 262144  # bytes of all annotations


def admit(resource: Resource, namespace: str, body: Json) -> Json:
    """Return the object that a create stores: checked, named, defaulted."""
    obj = copy.deepcopy(body)
    for given, wanted, what in (
        (obj.get("kind"), resource.kind, "kind"),
        (obj.get("apiVersion"), resource.api_version, "apiVersion"),
    ):
        if given not in (None, "", wanted):
            raise bad_request(
                f"the {what} in the data ({given}) does not match the expected {what} ({wanted})"
            )
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if v is not None}
    obj["metadata"] = meta
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "selfLink",
                  "deletionTimestamp", "deletionGracePeriodSeconds"):  # fmt: skip
        meta.pop(field, None)
    if resource.namespaced:
        if meta.get("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        meta["namespace"] = namespace
    if not meta.get("name") and meta.get("generateName"):
        # random, not deterministic by the seed: names must differ between instances
        suffix = "".join(random.choices(_RANDOM, k=5))
        meta["name"] = meta["generateName"][:58] + suffix
    causes = Causes()
    _check_metadata(resource, meta, causes)
    for check in _CHECKS.get(resource.plural, ()):
        check(obj, causes)
    causes.refuse(resource.group, resource.kind, meta.get("name", ""))
    for fill in _DEFAULTS.get(resource.plural, ()):
        fill(obj)
    if resource is JOBS:
        _label_pods(obj)
    return obj


def _label_pods(job: Json) -> None:
    """Give a Job the selector that finds its pods, and them the labels that it looks for."""
    meta = job["metadata"]
    meta["uid"] = str(uuid.uuid4())
    labels: Json = {}
    for prefix in ("", "batch.kubernetes.io/"):
        labels |= {f"{prefix}controller-uid": meta["uid"], f"{prefix}job-name": meta["name"]}
    template = job["spec"]["template"]
    was = template.get("metadata") or {}
    template["metadata"] = {**was, "labels": {**(was.get("labels") or {}), **labels}}
    unique = "batch.kubernetes.io/controller-uid"
    job["spec"]["selector"] = {"matchLabels": {unique: labels[unique]}}


def check_update(resource: Resource, old: Json, new: Json) -> None:
    """Refuse what may not change any more."""
    causes = Causes()
    _check_metadata(resource, new["metadata"], causes)
    if resource is PODS and _frozen_pod(old["spec"]) != _frozen_pod(new.get("spec") or {}):
        causes.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
            "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to "
            "be set to 1 if it was previously negative)",
        )
    if resource is JOBS:
        suspended = old["spec"].get("suspend")
        for field in ("completions", "selector", "template", "completionMode", "podFailurePolicy"):
            before, after = old["spec"].get(field), (new.get("spec") or {}).get(field)
            if before != after and not (field == "template" and suspended):
                causes.invalid(f"spec.{field}", after, "field is immutable")
    if resource.plural in ("configmaps", "secrets") and old.get("immutable"):
        changed = any(old.get(f) != new.get(f) for f in ("data", "binaryData", "immutable"))
        if changed:
            causes.forbidden("data", "field is immutable when `immutable` is set")
    for check in _CHECKS.get(resource.plural, ()):
        if resource not in (PODS, JOBS):
            check(new, causes)
    causes.refuse(resource.group, resource.kind, new["metadata"]["name"])
    for fill in _DEFAULTS.get(resource.plural, ()):
        fill(new)


def _frozen_pod(spec: Json) -> Json:
    loose = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    frozen = {k: v for k, v in spec.items() if k not in loose}
    for kind in ("containers", "initContainers"):
        frozen[kind] = [{**c, "image": ""} for c in spec.get(kind) or []]
    return frozen


def _check_metadata(resource: Resource, meta: Json, causes: Causes) -> None:
    name = meta.get("name", "")
    plain = resource in (NAMESPACES,)
    if not name:
        causes.required("metadata.name", "name or generateName is required")
    elif plain and (len(name) > 63 or not LABEL.fullmatch(name)):
        causes.invalid("metadata.name", name, _too_long(name, 63) or LABEL_TEXT)
    elif len(name) > 253 or not SUBDOMAIN.fullmatch(name):
        causes.invalid("metadata.name", name, _too_long(name, 253) or SUBDOMAIN_TEXT)
    check_labels(meta.get("labels") or {}, "metadata.labels", causes)
    annotations = meta.get("annotations") or {}
    for key in annotations:
        if not _KEY.fullmatch(key.lower()):
            causes.invalid("metadata.annotations", key, _KEY_TEXT)
    if sum(len(k) + len(v) for k, v in annotations.items()) > _ANNOTATIONS:
        causes.append({
            "reason": "FieldValueTooLong", "field": "metadata.annotations",
            "message": f"Too long: may not be more than {_ANNOTATIONS} bytes",
        })  # fmt: skip


def check_labels(labels: Json, field: str, causes: Causes) -> None:
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            causes.invalid(field, key, _KEY_TEXT)
        if not isinstance(value, str):
            raise bad_request(
                f"json: cannot unmarshal {type(value).__name__} into Go struct field "
                f"ObjectMeta.{field} of type string"
            )
        if len(value) > 63 or not _VALUE.fullmatch(value):
            causes.invalid(field, value, _too_long(value, 63) or _VALUE_TEXT)


def _too_long(value: str, limit: int) -> str:
    return f"must be no more than {limit} characters" if len(value) > limit else ""


def _check_pod(obj: Json, causes: Causes) -> None:
    check_pod_spec(obj.get("spec") or {}, "spec", causes)


def _check_job(obj: Json, causes: Causes) -> None:
    spec = obj.get("spec") or {}
    name = obj["metadata"].get("name", "")
    if len(name) > 63:
        causes.invalid("spec.template.labels", name, "must be no more than 63 characters")
    for field in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds",
                  "ttlSecondsAfterFinished"):  # fmt: skip
        value = spec.get(field)
        if value is not None and not isinstance(value, int):
            raise bad_request(
                f"json: cannot unmarshal string into Go struct field JobSpec.spec.{field} of type "
                "int32"
            )
        if value is not None and value < 0:
            causes.invalid(f"spec.{field}", value, "must be greater than or equal to 0")
    for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy", "managedBy"):
        if spec.get(field) is not None:
            causes.forbidden(f"spec.{field}", "not implemented by this stand-in")
    if spec.get("manualSelector") or spec.get("selector"):
        causes.invalid("spec.selector", spec.get("selector"), "`selector` not auto-generated")
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        causes.required("spec.completions", "when completion mode is Indexed")
    if spec.get("completionMode") not in (None, "Indexed", "NonIndexed"):
        allowed = ("Indexed", "NonIndexed")
        causes.unsupported("spec.completionMode", spec["completionMode"], allowed)
    template = spec.get("template") or {}
    check_labels((template.get("metadata") or {}).get("labels") or {},
                 "spec.template.labels", causes)  # fmt: skip
    pod = template.get("spec") or {}
    check_pod_spec(pod, "spec.template.spec", causes)
    policy = pod.get("restartPolicy")
    field = "spec.template.spec.restartPolicy"
    if policy is None:
        causes.required(field, 'valid values: "OnFailure", "Never"')
    elif policy == "Always":
        causes.unsupported(field, policy, ("OnFailure", "Never"))
    if spec.get("podFailurePolicy"):
        if policy != "Never":
            text = 'only "Never" is supported when podFailurePolicy is specified'
            causes.invalid(field, policy, text)
        for i, rule in enumerate(spec["podFailurePolicy"].get("rules") or []):
            actions = ("Count", "FailJob", "Ignore")
            if rule.get("action") not in actions:
                at = f"spec.podFailurePolicy.rules[{i}].action"
                causes.unsupported(at, rule.get("action", ""), actions)


def _check_data(obj: Json, causes: Causes) -> None:
    for part in ("data", "binaryData", "stringData"):
        for key, value in (obj.get(part) or {}).items():
            if not _DATA_KEY.fullmatch(key):
                causes.invalid(
                    f"{part}[{key}]", key,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
                    "(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation "
                    "is '[-._a-zA-Z0-9]+')",
                )  # fmt: skip
            coded = part == "binaryData" or (part == "data" and obj["kind"] == "Secret")
            if coded:
                try:
                    base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError):
                    raise bad_request(
                        f'{obj["kind"]} in version "v1" cannot be handled as a {obj["kind"]}: '
                        "illegal base64 data at input byte 0"
                    ) from None
    size = sum(len(v) for p in ("data", "binaryData", "stringData")
               for v in (obj.get(p) or {}).values())  # fmt: skip
    if size > 1048576 * (4 / 3 if obj["kind"] == "Secret" else 1):
        causes.append({
            "reason": "FieldValueTooLong", "field": "data",
            "message": "Too long: may not be more than 1048576 bytes",
        })  # fmt: skip


def _default_pod(obj: Json) -> None:
    obj["spec"] = default_pod_spec(obj["spec"], obj["metadata"]["namespace"])
    obj.setdefault("status", {})
    obj["status"] = {"phase": "Pending", "qosClass": _quality(obj["spec"]), **obj["status"]}


def _quality(spec: Json) -> str:
    resources = [c.get("resources") or {} for c in spec["containers"]]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    for r in resources:
        limits = r.get("limits") or {}
        if not {"cpu", "memory"} <= set(limits) or (r.get("requests") or limits) != limits:
            return "Burstable"
    return "Guaranteed"


def _default_job(obj: Json) -> None:
    spec = obj["spec"]
    spec.setdefault("completionMode", "NonIndexed")
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy")
                    else "TerminatingOrFailed")  # fmt: skip
    spec["template"]["spec"] = default_pod_spec(spec["template"]["spec"], "")
    obj.setdefault("status", {})


def _default_secret(obj: Json) -> None:
    text = obj.pop("stringData", None) or {}
    coded = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
    if obj.get("data") or coded:
        obj["data"] = {**(obj.get("data") or {}), **coded}
    obj.setdefault("type", "Opaque")


def _check_service(obj: Json, causes: Causes) -> None:
    spec = obj.get("spec") or {}
    if spec.get("type") not in (None, "ClusterIP"):
        causes.forbidden("spec.type", "not implemented by this stand-in: other than ClusterIP")
    if not spec.get("ports") and spec.get("clusterIP") != "None":
        causes.required("spec.ports")
    for i, port in enumerate(spec.get("ports") or []):
        if not 0 < port.get("port", 0) < 65536:
            text = "must be between 1 and 65535, inclusive"
            causes.invalid(f"spec.ports[{i}].port", port.get("port", 0), text)


def _default_service(obj: Json) -> None:
    spec = obj["spec"]
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("clusterIP", ADDRESS)
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    obj.setdefault("status", {"loadBalancer": {}})


def _default_namespace(obj: Json) -> None:
    labels = obj["metadata"].get("labels") or {}
    obj["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": obj["metadata"]["name"]}
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")


_CHECKS: dict[str, tuple[Callable[[Json, Causes], None], ...]] = {
    PODS.plural: (_check_pod,),
    JOBS.plural: (_check_job,),
    SECRETS.plural: (_check_data,),
    "configmaps": (_check_data,),
    SERVICES.plural: (_check_service,),
}
_DEFAULTS: dict[str, tuple[Callable[[Json], None], ...]] = {
    PODS.plural: (_default_pod,),
    JOBS.plural: (_default_job,),
    SECRETS.plural: (_default_secret,),
    NAMESPACES.plural: (_default_namespace,),
    SERVICES.plural: (_default_service,),
}
