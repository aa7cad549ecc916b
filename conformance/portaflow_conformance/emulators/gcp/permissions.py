"""What an account may do, and what a region has left: for who asks before making anything.

An account may do all but what a fault of the effect "deny" stands against.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from ..control import Control
from ..faults import struck
from .checks import CORES
from .iam import Application
from .regions import REGIONS
from .rpc import Code, RefusedError, invalid, refuse
from .tokens import Tokens
from .wire import Request, Response

HOSTS = ("cloudresourcemanager.googleapis.com", "iam.googleapis.com", "compute.googleapis.com")
_PERMISSION = re.compile(r"(\w+)\.(\w+?)s\.(\w+)")
_CALLS = {
    "dataproc.CreateJob": "dataproc.SubmitJob",
    "dataproc.CancelBatch": "dataproc.DeleteBatch",
}


class Permissions(Application):
    def __init__(self, control: Control, tokens: Tokens) -> None:
        super().__init__(control, tokens)
        self._ways: Mapping[str, tuple[str, Callable[..., Response]]] = {
            r"POST cloudresourcemanager\S+/v[13]/projects/([^/]+):testIamPermissions": (
                "cloudresourcemanager.TestIamPermissions", self._project
            ),
            r"POST iam\S+/v1/projects/[^/]+/serviceAccounts/([^/]+):testIamPermissions": (
                "iam.TestIamPermissions", self._account
            ),
            r"GET compute\S+/compute/v1/projects/[^/]+/regions/([^/]+)": (
                "compute.GetRegion", self._region
            ),
        }  # fmt: skip

    def _answer(self, request: Request) -> Response:
        asked = f"{request.method} {request.host}{request.path}"
        ways = ((re.fullmatch(pattern, asked), way) for pattern, way in self._ways.items())
        found, way = next(((f, w) for f, w in ways if f), (None, None))
        if found is None or way is None:
            raise RefusedError(Code.NOT_FOUND, f"{asked} is not in the local GCP")
        who = self._who(request)
        about = unquote(found[1])
        name, answer = way
        fault = self._control.called(f"gcp:{name}", who, about=about)
        return struck(fault, lambda: answer(request, who, about), refuse)

    def _project(self, request: Request, who: str, project: str) -> Response:
        return self._held(request, who)

    def _account(self, request: Request, who: str, account: str) -> Response:
        if not account.endswith(".gserviceaccount.com"):
            raise RefusedError(Code.NOT_FOUND, f"Unknown service account: {account}")
        return self._held(request, who)

    def _held(self, request: Request, who: str) -> Response:
        held = []
        for permission in request.json().get("permissions", []):
            if not (found := _PERMISSION.fullmatch(str(permission))):
                raise invalid(f"Permission {permission} is not valid for this resource.")
            # dataproc.clusters.create is for the call dataproc.CreateCluster.
            service, thing, verb = found.groups()
            call = f"{service}.{verb[0].upper()}{verb[1:]}{thing[0].upper()}{thing[1:]}"
            if not self._control.denies(f"gcp:{_CALLS.get(call, call)}", who):
                held.append(permission)
        return Response.json({"permissions": held})

    def _region(self, request: Request, who: str, region: str) -> Response:
        if region not in REGIONS:
            raise RefusedError(Code.NOT_FOUND, f"The resource 'regions/{region}' was not found")
        cores = {"metric": "CPUS", "limit": float(CORES), "usage": 0.0}
        return Response.json({"kind": "compute#region", "name": region, "quotas": [cores]})
