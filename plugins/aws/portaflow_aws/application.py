"""The application of EMR Serverless in which jobs run: found, or made when it is first needed.

An application is a name with settings. It costs nothing while no job runs, so it stays.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from portaflow.errors import NotFoundError

from . import catalogue
from .connect import Aws, connect, told

if TYPE_CHECKING:
    from .serverless import Config

PREFIX = "portaflow-"
_GONE = "TERMINATED"


class Applications:
    """Safe to use from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}  # id by name

    @property
    def aws(self) -> Aws:
        return connect(self._config)

    @property
    def client(self) -> Any:
        return self.aws.client("emr-serverless")

    def body(self) -> dict[str, Any]:
        """What CreateApplication is sent; its name says with which settings. Pure."""
        config = self._config
        body: dict[str, Any] = {
            "releaseLabel": config.release or catalogue.release(""),
            "type": "SPARK",
            "tags": dict(config.tags),
        }
        network = {"subnetIds": config.subnets, "securityGroupIds": config.security_groups}
        if config.subnets:
            body["networkConfiguration"] = {k: list(v) for k, v in network.items() if v}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return {"name": f"{PREFIX}{digest[:12]}", **body}

    def find(self) -> str:
        """The id of the application of the settings; "" when there is none."""
        if self._config.application:
            return self._config.application
        name = self.body()["name"]
        with self._lock:
            if name not in self._known:
                ids = [
                    a["id"]
                    for a in self._all()
                    if (a.get("name"), a["state"] != _GONE) == (name, True)
                ]
                if ids:
                    self._known[name] = min(ids)
            return self._known.get(name, "")

    def make(self, body: Mapping[str, Any]) -> str:
        """The id of the application that `body` describes, made if need be.

        Two that make one at the same time get one: the token follows from its name, and from
        how many of that name were deleted, for AWS remembers those.
        """
        there = [a for a in self._all() if a.get("name") == body["name"]]
        for one in there:
            if one["state"] != _GONE:
                return str(one["id"])
        with told(f"application {body['name']!r}", self._config):
            token = f"{body['name']}-{len(there)}"
            answer = self.client.create_application(**body, clientToken=token)
        return str(answer["applicationId"])

    def forget(self) -> None:
        """The application is gone."""
        with self._lock:
            self._known.clear()

    def ours(self) -> list[str]:
        """The ids of all applications in which jobs of portaflow may run."""
        if self._config.application:
            return [self._config.application]
        return [
            a["id"]
            for a in self._all()
            if a.get("name", "").startswith(PREFIX) and a["state"] != _GONE
        ]

    def state(self, id: str) -> str:
        with told(f"application {id}", self._config):
            return str(self.client.get_application(applicationId=id)["application"]["state"])

    def _all(self) -> Iterator[Mapping[str, Any]]:
        words: dict[str, Any] = {}
        while True:
            with told("list of applications", self._config):
                answer = self.client.list_applications(**words)
            yield from answer["applications"]
            if not (token := answer.get("nextToken")):
                return
            words["nextToken"] = token


def gone(id: str) -> NotFoundError:
    return NotFoundError(f"application {id or 'of these settings'} is not there")
