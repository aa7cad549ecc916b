"""EMR Serverless: applications whose states take time, and job runs that are processes."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from ..control import Fault
from . import releases
from .jobrun import ENDED, JobRun, hidden
from .rest import ACCOUNT, Asked, RefusedError, Service, Tokens, invalid, page, timestamp
from .shapes import check, enumeration
from .shop import Shop

_TICK = 0.05
_OLDEST = (6, 6)  # releases before it have no EMR Serverless
_KEPT = (
    *("name", "releaseLabel", "type", "tags", "initialCapacity", "maximumCapacity"),
    *("autoStartConfiguration", "autoStopConfiguration", "networkConfiguration", "architecture"),
    *("imageConfiguration", "workerTypeSpecifications", "runtimeConfiguration"),
    *("monitoringConfiguration", "interactiveConfiguration", "schedulerConfiguration"),
)
_RUN = ("executionRoleArn", "jobDriver", "configurationOverrides", "tags", "name", "mode")


class Application:
    def __init__(self, region: str, given: dict[str, Any], fault: Fault | None) -> None:
        self.id = "00" + secrets.token_hex(7)
        self.region, self.given, self.fault = region, given, fault
        self.arn = f"arn:aws:emr-serverless:{region}:{ACCOUNT}:/applications/{self.id}"
        self.created = self.updated = time.time()
        self.state, self.why = "CREATING", ""
        self.since = time.monotonic()  # when it came into its state
        self.idle = 0.0  # by the clock of times-to-live
        self.runs: dict[str, JobRun] = {}

    def become(self, state: str, why: str = "") -> None:
        self.state, self.why = state, why
        self.since, self.updated = time.monotonic(), time.time()

    def told(self) -> dict[str, Any]:
        stop = {"enabled": True, "idleTimeoutMinutes": 15}
        defaults = {"autoStartConfiguration": {"enabled": True}, "architecture": "X86_64"}
        return {
            **defaults,
            **self.given,
            "autoStopConfiguration": {**stop, **self.given.get("autoStopConfiguration", {})},
            "applicationId": self.id,
            "arn": self.arn,
            "state": self.state,
            "stateDetails": self.why,
            "createdAt": self.created,
            "updatedAt": self.updated,
        }

    def hidden(self) -> bool:
        return hidden(self.fault, self.created)


class Serverless(Service):
    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._lock = threading.RLock()
        self._all: dict[str, Application] = {}
        self._tokens = Tokens()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drive, name="emr-serverless", daemon=True)
        self._thread.start()

    def do(self, operation: str, asked: Asked) -> dict[str, Any]:
        if operation in self.calls:
            check("emr-serverless", operation, asked.body)
        with self._lock:
            return super().do(operation, asked)

    def create(self, asked: Asked) -> dict[str, Any]:
        kind = asked.body["type"]
        _check_release(asked.body["releaseLabel"], asked.region)
        if kind.lower() != "spark":
            why = f"An application of type {kind!r} is not in the local AWS: only Spark"
            raise RefusedError(501, "NotImplemented", why)

        def make() -> Application:
            given = {k: asked.body[k] for k in _KEPT if k in asked.body} | {"type": "Spark"}
            new = Application(asked.region, given, asked.fault)
            self._all[new.id] = new
            return new

        made = self._tokens.once(asked, "applications", make=make)
        return {"applicationId": made.id, "arn": made.arn, "name": made.given.get("name")}

    def get(self, asked: Asked) -> dict[str, Any]:
        return {"application": self._one(asked).told()}

    def list_all(self, asked: Asked) -> dict[str, Any]:
        states = _states(asked, "ApplicationState")
        found = [
            {**app.told(), "id": app.id}
            for app in reversed(self._all.values())
            if app.region == asked.region and not app.hidden()
            if not states or app.state in states
        ]
        these, token = page(found, asked)
        return {"applications": these, "nextToken": token}

    def update(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        self._need(app, "updated", "CREATED", "STOPPED")
        if release := asked.body.get("releaseLabel"):
            _check_release(release, asked.region)
        app.given |= {k: v for k, v in asked.body.items() if k in _KEPT and k != "type"}
        app.updated = time.time()
        return {"application": app.told()}

    def start(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        if app.state not in ("STARTING", "STARTED"):
            self._need(app, "started", "CREATED", "STOPPED")
            app.become("STARTING")
        return {}

    def stop_one(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        if busy := [run.id for run in app.runs.values() if run.state not in ENDED]:
            raise invalid(f"Application {app.id} has {len(busy)} active job runs: {busy[:3]}.")
        if app.state not in ("STOPPING", "STOPPED"):
            self._need(app, "stopped", "STARTED", "STARTING", "CREATED")
            app.become("STOPPING")
        return {}

    def delete(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        self._need(app, "deleted", "CREATED", "STOPPED")
        app.become("TERMINATED")
        shutil.rmtree(self._shop.folder / app.id, ignore_errors=True)
        return {}

    def start_run(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        body = asked.body
        if not body.get("jobDriver", {}).get("sparkSubmit", {}).get("entryPoint"):
            raise invalid("jobDriver.sparkSubmit.entryPoint is required for a Spark application.")
        if body.get("mode", "BATCH") != "BATCH" or body.get("retryPolicy"):
            why = "StartJobRun with mode STREAMING or a retryPolicy is not in the local AWS"
            raise RefusedError(501, "NotImplemented", why)
        minutes = body.get("executionTimeoutMinutes", 720)
        if minutes and minutes < 5:
            raise invalid("executionTimeoutMinutes must be 0 or at least 5.")

        def make() -> JobRun:
            told = app.told()
            startable = told["autoStartConfiguration"].get("enabled", True)
            allowed = ("CREATED", "STOPPED", "STARTING", "STARTED", "CREATING")
            self._need(app, "used", *(allowed if startable else allowed[2:4]))
            given = {k: body[k] for k in _RUN if k in body}
            by = f"arn:aws:iam::{ACCOUNT}:user/{asked.principal}"
            given |= {"executionTimeoutMinutes": minutes, "createdBy": by}
            run = JobRun(self._shop, app, given, asked.fault)
            app.runs[run.id] = run
            if app.state in ("CREATED", "STOPPED"):
                app.become("STARTING")
            return run

        run = self._tokens.once(asked, "jobruns", app.id, make=make)
        return {"applicationId": app.id, "jobRunId": run.id, "arn": run.arn}

    def get_run(self, asked: Asked) -> dict[str, Any]:
        return {"jobRun": self._run(asked).told()}

    def list_runs(self, asked: Asked) -> dict[str, Any]:
        app = self._one(asked)
        states = _states(asked, "JobRunState")
        after = timestamp(asked.one("createdAtAfter") or "1970-01-01T00:00:00Z")
        before = timestamp(asked.one("createdAtBefore") or "9999-01-01T00:00:00Z")
        found = [
            {**run.told(), "id": run.id, "type": "Spark"}
            for run in reversed(app.runs.values())
            if not run.hidden() and (not states or run.state in states)
            if after <= run.created <= before
        ]
        these, token = page(found, asked)
        return {"jobRuns": these, "nextToken": token}

    def cancel_run(self, asked: Asked) -> dict[str, Any]:
        run = self._run(asked)
        if run.state in ENDED:
            raise invalid(f"Job run {run.id} is in the state {run.state} and cannot be cancelled.")
        run.cancel()
        return {"applicationId": asked["applicationId"], "jobRunId": run.id}

    def tag(self, asked: Asked) -> dict[str, Any]:
        given = self._tagged(asked)
        given["tags"] = {**given.get("tags", {}), **asked.body["tags"]}
        return {}

    def untag(self, asked: Asked) -> dict[str, Any]:
        given = self._tagged(asked)
        gone = asked.query.get("tagKeys", ())
        given["tags"] = {k: v for k, v in given.get("tags", {}).items() if k not in gone}
        return {}

    def list_tags(self, asked: Asked) -> dict[str, Any]:
        return {"tags": self._tagged(asked).get("tags", {})}

    calls: ClassVar = {
        "CreateApplication": create,
        "GetApplication": get,
        "ListApplications": list_all,
        "UpdateApplication": update,
        "StartApplication": start,
        "StopApplication": stop_one,
        "DeleteApplication": delete,
        "StartJobRun": start_run,
        "GetJobRun": get_run,
        "ListJobRuns": list_runs,
        "CancelJobRun": cancel_run,
        "TagResource": tag,
        "UntagResource": untag,
        "ListTagsForResource": list_tags,
    }

    def _tagged(self, asked: Asked) -> dict[str, Any]:
        """What the resource was asked for with, which holds its tags."""
        arn = asked["resourceArn"]
        things: list[Application | JobRun] = [*self._all.values()]
        things += [run for app in self._all.values() for run in app.runs.values()]
        for one in things:
            if one.arn == arn:
                return one.given
        raise RefusedError(404, "ResourceNotFoundException", f"Resource {arn} does not exist")

    def _one(self, asked: Asked) -> Application:
        app = self._all.get(asked["applicationId"])
        if app is None or app.region != asked.region:
            why = f"Application {asked['applicationId']} does not exist"
            raise RefusedError(404, "ResourceNotFoundException", why)
        return app

    def _run(self, asked: Asked) -> JobRun:
        run = self._one(asked).runs.get(asked["jobRunId"])
        if run is None:
            why = f"Job run {asked['jobRunId']} does not exist"
            raise RefusedError(404, "ResourceNotFoundException", why)
        return run

    def _need(self, app: Application, verb: str, *states: str) -> None:
        if app.state not in states:
            why = f"must be in one of the following statuses [{', '.join(states)}] to be {verb}"
            raise invalid(f"Application {app.id} {why}. Current status: {app.state}")

    def _drive(self) -> None:
        while not self._over.wait(_TICK):
            with self._lock:
                for app in self._all.values():
                    self._move(app)

    def _move(self, app: Application) -> None:
        ripe = time.monotonic() - app.since >= self._shop.pace / 2
        effect = app.fault.effect if app.fault else ""
        now = self._shop.control.now()
        waits = any(run.state not in ENDED for run in app.runs.values())
        if app.state in ("CREATING", "STARTING", "STARTED") and waits and effect == "die":
            app.become("TERMINATED", "a fault on order")
        elif app.state == "CREATING" and ripe and effect != "hang":
            if effect == "fail":
                app.become("TERMINATED", "a fault on order")
            else:
                app.become("STARTING" if waits else "CREATED")
        elif app.state == "STARTING" and ripe:
            app.become("STARTED")
            app.idle = now
        elif app.state == "STOPPING" and ripe:
            app.become("STOPPED")
        if waits:
            app.idle = now
        rule = app.told()["autoStopConfiguration"]
        limit = 60 * float(rule["idleTimeoutMinutes"]) if rule["enabled"] else float("inf")
        if app.state == "STARTED" and now - app.idle > limit:
            app.become("STOPPING", "Stopped: the application was idle")

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        for app in self._all.values():
            for run in app.runs.values():
                run.cancel()
            for run in app.runs.values():
                run.join()


def _check_release(label: str, region: str) -> None:
    number = re.fullmatch(r"emr-(\d+)\.(\d+)\.\d+", label)
    old = number is not None and (int(number[1]), int(number[2])) < _OLDEST
    if old or label not in releases.labels(region):
        raise invalid(f"Release label '{label}' is not supported.")


def _states(asked: Asked, shape: str) -> Sequence[str]:
    """The states that a listing is to have; none means all."""
    states = asked.query.get("states", ())
    known = enumeration("emr-serverless", shape)
    for state in states:
        if state not in known:
            raise invalid(f"'{state}' is none of the states [{', '.join(known)}].")
    return states
