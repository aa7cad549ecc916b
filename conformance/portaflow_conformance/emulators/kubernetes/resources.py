"""The kinds of objects that are served, and the discovery documents made from them."""

from __future__ import annotations

from dataclasses import dataclass

from .problems import Json

VERSION = "v1.33.0"

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One collection of the API."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    returns_object: bool = False  # what DELETE answers with, a Status otherwise
    counts_generation: bool = False  # whether a change of `spec` raises metadata.generation
    verbs: tuple[str, ...] = _VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()


PODS = Resource(
    "pods", "Pod", short=("po",), returns_object=True, counts_generation=True,
    subresources=("status", "log", "exec", "attach", "eviction"),
)  # fmt: skip
JOBS = Resource(
    "jobs", "Job", group="batch", subresources=("status",), counts_generation=True
)  # fmt: skip
CONFIG_MAPS = Resource("configmaps", "ConfigMap", short=("cm",))
SECRETS = Resource("secrets", "Secret")
EVENTS = Resource("events", "Event", short=("ev",))
NAMESPACES = Resource(
    "namespaces", "Namespace", namespaced=False, short=("ns",), subresources=("status",),
    returns_object=True,
)  # fmt: skip
SERVICE_ACCOUNTS = Resource(
    "serviceaccounts", "ServiceAccount", short=("sa",), returns_object=True,
    subresources=("token",),
)  # fmt: skip
NODES = Resource("nodes", "Node", namespaced=False, short=("no",), subresources=("status",))
SERVICES = Resource(
    "services", "Service", short=("svc",), subresources=("status",), returns_object=True
)  # fmt: skip
QUOTAS = Resource(
    "resourcequotas", "ResourceQuota", short=("quota",), subresources=("status",),
    returns_object=True,
)  # fmt: skip
LIMIT_RANGES = Resource("limitranges", "LimitRange", short=("limits",))
# Listed and deleted, as Spark does at its end; made they cannot be.
CLAIMS = Resource("persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",))
_RBAC = "rbac.authorization.k8s.io"
ROLES = Resource("roles", "Role", group=_RBAC)
ROLE_BINDINGS = Resource("rolebindings", "RoleBinding", group=_RBAC)
CLUSTER_ROLES = Resource("clusterroles", "ClusterRole", group=_RBAC, namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "clusterrolebindings", "ClusterRoleBinding", group=_RBAC, namespaced=False
)  # fmt: skip
_AUTH = "authorization.k8s.io"  # its objects are answered, never stored
SELF_REVIEWS = Resource(
    "selfsubjectaccessreviews", "SelfSubjectAccessReview", group=_AUTH, namespaced=False,
    verbs=("create",),
)  # fmt: skip
REVIEWS = Resource(
    "subjectaccessreviews", "SubjectAccessReview", group=_AUTH, namespaced=False,
    verbs=("create",),
)  # fmt: skip
LOCAL_REVIEWS = Resource(
    "localsubjectaccessreviews", "LocalSubjectAccessReview", group=_AUTH, verbs=("create",)
)

RESOURCES = (
    PODS, JOBS, CONFIG_MAPS, SECRETS, EVENTS, NAMESPACES, SERVICE_ACCOUNTS, NODES, SERVICES,
    QUOTAS, LIMIT_RANGES, CLAIMS, ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS,
    SELF_REVIEWS, REVIEWS, LOCAL_REVIEWS,
)  # fmt: skip
BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}

_SUBRESOURCE_KINDS = {
    "eviction": ("Eviction", ("create",)),
    "token": ("TokenRequest", ("create",)),
    "log": ("Pod", ("get",)),
    "exec": ("PodExecOptions", ("create", "get")),
    "attach": ("PodAttachOptions", ("create", "get")),
    "status": ("", ("get", "patch", "update")),
}


def api_versions() -> Json:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_group(group: str) -> Json | None:
    if not group or group not in {r.group for r in RESOURCES}:
        return None
    preferred = {"groupVersion": f"{group}/v1", "version": "v1"}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def api_groups() -> Json:
    names = dict.fromkeys(r.group for r in RESOURCES)
    groups = [found for name in names if (found := api_group(name)) is not None]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_resources(group: str, version: str) -> Json | None:
    """The APIResourceList of one group and version."""
    found = [r for r in RESOURCES if (r.group, r.version) == (group, version)]
    if not found:
        return None
    entries: list[Json] = []
    for resource in found:
        entry: Json = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
            "shortNames": list(resource.short),
            "categories": ["all"] if resource in (PODS, JOBS, SERVICES) else [],
        }
        entries.append(entry)
        for name in resource.subresources:
            kind, verbs = _SUBRESOURCE_KINDS[name]
            entries.append(
                {
                    "name": f"{resource.plural}/{name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": kind or resource.kind,
                    "verbs": list(verbs),
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": entries,
    }


def version() -> Json:
    major, minor = VERSION[1:].split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}+portaflow",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }
