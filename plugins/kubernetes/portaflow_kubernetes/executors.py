"""What Spark jobs wait for while their drivers run: executors that find no node, or are refused.

Those that wait are asked for in one call for all jobs; all executors only of jobs that have such,
or had none at work yet, 125 jobs in a call. Of one that the cluster refuses to make only its
driver's log tells: in a round one log is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from portaflow.backend import Status
from portaflow.errors import BackendError

from . import api, verdict
from .api import Json
from .jobs import PATIENCE, batches
from .manifest import KIND, MAIN, NAME
from .verdict import End

_ROLE = "spark-role=executor"  # a label that Spark gives
_REFUSED = re.compile(r"Message: (pods .*?)\. Received status", re.DOTALL)
_LINES = 300  # of a log, in which the last refusal is looked for: Spark repeats it
_READ = 20.0  # seconds without a byte of it


class Executors:
    """Those of all jobs of one kind. `waited` says for how long a job, by its uid, has waited."""

    def __init__(self, api: api.Api, kind: str, waited: Callable[[str], float]) -> None:
        self._api, self._kind, self._waited = api, kind, waited
        self.served: set[str] = set()  # uids of jobs with one at work, and none that waits
        self._refusals: dict[str, str] = {}  # by uid; whose log was read last is last

    def told(self, jobs: Mapping[str, Json]) -> dict[str, tuple[Status, End | None]]:
        """What is to be told of each job by its name; and of one that never will work, why."""
        uids = {name: str(job["metadata"]["uid"]) for name, job in jobs.items()}
        pods = self._of(uids)
        bare = {
            uid: name for name, uid in uids.items()
            if not pods[name] and uid not in self.served and self._waited(uid) > PATIENCE
        }  # fmt: skip
        self._ask_why(bare)
        told = {
            name: verdict.of_executors(
                job, pods[name], self._refusals.get(uids[name], ""), self._waited(uids[name])
            )
            for name, job in jobs.items()
        }
        self.served = {
            uid for name, uid in uids.items()
            if (pods[name] or uid in self.served) and not any(map(verdict.pending, pods[name]))
        }  # fmt: skip
        return told

    def _of(self, uids: Mapping[str, str]) -> dict[str, list[Json]]:
        """The pods of each job; none of one that is served still."""
        found: dict[str, list[Json]] = {name: [] for name in uids}
        new = {name for name, uid in uids.items() if uid not in self.served}
        if len(new) < len(uids):
            selected = {"labelSelector": f"{_ROLE},{NAME}", "fieldSelector": "status.phase=Pending"}
            new |= {_whose(pod) for pod in self._api.list(self._pods, **selected)} & uids.keys()
        for some in batches(sorted(new)):
            selector = f"{_ROLE},{NAME} in ({','.join(some)})"
            for pod in self._api.list(self._pods, labelSelector=selector):
                found[_whose(pod)].append(pod)
        return found

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{quote(self._api.namespace)}/pods"

    # -- refusals

    def _ask_why(self, bare: Mapping[str, str]) -> None:
        """Read one log of those who have no executors, by their uids: they take turns."""
        known = {uid: why for uid, why in self._refusals.items() if uid in bare}
        turn = next((uid for uid in bare if uid not in known), next(iter(known), ""))
        if turn:
            known.pop(turn, None)
            known[turn] = self.refusal(bare[turn])
        self._refusals = known

    def refusal(self, name: str) -> str:
        """What the cluster told a driver last when it would not make an executor; "" if nothing."""
        try:
            mine = f"{KIND}={self._kind},{NAME}={name}"
            for pod in self._api.list(self._pods, labelSelector=mine):
                where = f"{self._pods}/{quote(pod['metadata']['name'])}/log"
                with api.told(f"GET {where}"):
                    answer = self._api.stream(where, _READ, container=MAIN, tailLines=_LINES)
                    with answer:
                        said = _REFUSED.findall(answer.read().decode(errors="replace"))
                if said:
                    return str(said[-1])
        except BackendError:
            pass  # it is asked for again, or less is told
        return ""


def _whose(pod: Json) -> str:
    return str(pod["metadata"]["labels"][NAME])
