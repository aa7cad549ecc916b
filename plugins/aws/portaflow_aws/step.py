"""Spark jobs on clusters of EMR: one step each.

A step runs spark-submit on the cluster's first machine, where the driver stays (client mode):
there its output is the step's log, a cancelled step ends it, and coreutils' `timeout` holds it
to its time-to-live. On YARN (cluster mode) it would outlive both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from portaflow.backend import (
    Cause,
    Driver,
    Fit,
    Handle,
    JobSpec,
    LogChunk,
    Machines,
    Request,
    Size,
    State,
    Status,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError
from portaflow.spark import conf_fit, executor

from . import asked, secret
from .cluster import DECIDED, ClusterDriver, ending
from .connect import told
from .logs import Logs

if TYPE_CHECKING:
    from .emr import Config

_OWNER = "spark.portaflow.owner"  # a step has no tags, but its words are listed
_ALIVE = ("PENDING", "RUNNING", "CANCEL_PENDING")
_STREAMS = ("stdout", "stderr")
_GONE = "shutting down, terminated, or finished"  # what EMR says of a cluster that takes no step


class StepDriver(Driver[JobSpec]):
    """Starts, watches and stops steps on the clusters of one account and region."""

    def __init__(self, config: Config, clusters: ClusterDriver) -> None:
        self._config, self._clusters = config, clusters
        self._ended: dict[str, Status] = {}  # by id: an end does not change
        self._folders: dict[str, str] = {}  # where a cluster's logs go, by its id
        self._logs = Logs()

    @property
    def _emr(self) -> Any:
        return self._clusters.aws.client("emr")

    # -- requests

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        words = ["timeout", f"--kill-after={spec.grace}s", f"{spec.ttl}s"]
        if spec.env:
            words += ["env", *(f"{key}={value}" for key, value in spec.env.items())]
        words += secret.before(spec.secrets)
        words += ["spark-submit", "--deploy-mode", "client", "--name", name]
        if spec.main_class:
            words += ["--class", spec.main_class]
        for option, values in (
            ("--py-files", spec.py_files),
            ("--jars", spec.jars),
            ("--packages", spec.packages),
        ):
            if values:
                words += [option, ",".join(values)]
        conf = {
            _OWNER: spec.owner,
            **{f"spark.executorEnv.{key}": value for key, value in spec.env.items()},
            **executor(spec.size),
            **spec.conf,
        }
        for key, value in conf.items():
            words += ["--conf", f"{key}={value}"]
        step = {
            "Name": name,
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {
                "Jar": "command-runner.jar",
                "Args": [*words, spec.main, *spec.args],
            },
        }
        return {"JobFlowId": parent, "Steps": [step]}

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = conf_fit(spec.conf, DECIDED)
        if spec.size != Size():
            about = "of each executor, with what Spark needs beside its heap; how many there are "
            fits["size"] = Fit(Verdict.APPROXIMATED, f"{about}follows from the load")
        if spec.secrets:
            fits["secrets"] = Fit(Verdict.APPROXIMATED, "the driver alone has them, no executor")
        if not self._config.bootstrap and any(key.startswith(TO_GCS) for key in spec.conf):
            why = "gs:// is read by Google's connector, which a script of `bootstrap` puts there"
            fits.setdefault("conf", Fit(Verdict.APPROXIMATED, why))
        return fits

    def machines(self, request: Request) -> Sequence[Machines]:
        return ()  # its cluster's

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        found = self._find(name, parent) if parent else None
        return self._handle(found, parent.id) if parent and found else None

    def _find(self, name: str, parent: Handle) -> Mapping[str, Any] | None:
        try:
            for step in self._listed(parent.id):
                if step["Name"] == name:
                    return step
        except NotFoundError:  # the cluster
            return None
        made = asked.made(self._key(name, parent))
        return self._described(made) if made else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        (step,) = request["Steps"]
        name = step["Name"]
        if parent is None:
            raise NotFoundError(f"job {name!r} needs a cluster that is there")
        there: list[Mapping[str, Any]] = []

        def find() -> Handle | None:
            there.extend(filter(None, [self._find(name, parent)]))
            return self._handle(there[0], parent.id) if there else None

        def make() -> Handle:
            try:
                with told(f"job {name!r}", self._config):
                    answer = self._emr.add_job_flow_steps(**{**request, "JobFlowId": parent.id})
            except RejectedError as error:
                if _GONE in str(error):
                    raise NotFoundError(str(error)) from error
                raise
            return self._handle({"Name": name, "Id": answer["StepIds"][0]}, parent.id)

        handle = asked.once(self._key(name, parent), find, make)
        if there and there[0]["Config"]["Args"] != step["HadoopJarStep"]["Args"]:
            raise ConflictError(f"job {name!r} is there and was made from another request")
        return handle

    def stop(self, handle: Handle) -> None:
        """SIGTERM; the step's own `timeout` kills after the grace."""
        try:
            with told(f"job {handle.name!r}", self._config):
                self._emr.cancel_steps(
                    ClusterId=handle.parent,
                    StepIds=[handle.id],
                    StepCancellationOption="SEND_INTERRUPT",
                )
        except NotFoundError:
            return

    def owned(self, owner: str = "") -> Iterable[Handle]:
        for cluster in self._clusters.listed(("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")):
            for step in self._listed(cluster["Id"], _ALIVE):
                mine = _owner(step["Config"].get("Args", ()))
                if mine and owner in ("", mine):
                    yield self._handle(step, cluster["Id"])

    # -- status

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        seen: dict[str, Status | NotFoundError] = dict(self._ended)
        for cluster in {h.parent for h in handles}:
            wanted = {h.id for h in handles if h.parent == cluster} - seen.keys()
            if not wanted:
                continue
            try:
                for step in self._listed(cluster):
                    if step["Id"] in wanted:
                        seen[step["Id"]] = self._status(step, cluster)
                    if not (wanted := wanted - {step["Id"]}):
                        break
            except NotFoundError as error:
                seen |= dict.fromkeys(wanted, error)
                continue
            for handle in (h for h in handles if h.parent == cluster and h.id in wanted):
                try:  # too new for the list, or not there
                    seen[handle.id] = self._status(self._described(handle), cluster)
                except NotFoundError as error:
                    seen[handle.id] = error
        return {h.name: seen[h.id] for h in handles}

    def _status(self, step: Mapping[str, Any], cluster: str) -> Status:
        state = step["Status"]["State"]
        if state == "PENDING":
            return Status(state=State.PENDING)
        if state in _ALIVE:
            return Status(state=State.RUNNING)
        status = Status(state=State.SUCCEEDED, exit_code=0)
        if state != "COMPLETED":
            status = self._verdict(step, cluster)
        self._ended[step["Id"]] = status
        return status

    def _verdict(self, step: Mapping[str, Any], cluster: str) -> Status:
        """Why a step ended that did not end well."""
        parent = self._clusters.described(cluster)["Status"]
        if parent["State"].startswith("TERMINAT"):
            end = ending(parent)
            if end.state is State.FAILED and end.cause is not Cause.USER:
                reason = f"its cluster ended while it ran: {end.reason}"
                return Status(state=State.FAILED, reason=reason, cause=end.cause)
        if step["Status"]["State"] in ("CANCELLED", "INTERRUPTED"):
            return Status(state=State.STOPPED, reason="it was asked to stop")
        if (ttl := _ttl(step["Config"].get("Args", ()))) and _seconds(step) >= ttl:
            reason = f"its time-to-live of {ttl} s was over"
            return Status(state=State.STOPPED, reason=reason)
        why = step["Status"].get("FailureDetails", {})
        said = why.get("Message") or why.get("Reason") or "it has ended badly"
        cause = Cause.DENIED if said.startswith(secret.FAILED) else Cause.USER
        parts = [said]
        if "LogFile" in why:
            parts.append(f"log: {why['LogFile']}")
        return Status(state=State.FAILED, reason="\n".join(parts), cause=cause)

    # -- logs

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        """Standard output, then standard error, as EMR puts them into the log bucket.

        It does so every few minutes while a step runs, and once more after its end.
        """
        if handle.parent not in self._folders:
            cluster = self._clusters.described(handle.parent)
            uri = cluster.get("LogUri", "").rstrip("/")
            self._folders[handle.parent] = uri.replace("s3n://", "s3://", 1)  # as EMR tells it
        if not (uri := self._folders[handle.parent]):
            raise NotFoundError(
                f"job {handle.name!r} keeps no log: its cluster has none; set `log_uri` in the "
                "target to a folder of a bucket, as s3://BUCKET/FOLDER"
            )
        status = self._described(handle)["Status"]
        ended = None if status["State"] in _ALIVE else status["Timeline"].get("EndDateTime")
        never_ran = status["State"] not in _ALIVE and "StartDateTime" not in status["Timeline"]
        if never_ran:
            return LogChunk(data=b"", cursor=cursor, end=True)
        folder = f"{uri}/{handle.parent}/steps/{handle.id}/"
        with told(f"log of job {handle.name!r} in {folder}", self._config):
            s3 = self._clusters.aws.client("s3")
            return self._logs.read(s3, folder, _STREAMS, cursor, ended)

    # -- what EMR knows

    def _listed(self, cluster: str, states: Iterable[str] = ()) -> Iterator[Mapping[str, Any]]:
        """The steps of a cluster; the newest first."""
        words: dict[str, Any] = {"ClusterId": cluster}
        if states:
            words["StepStates"] = list(states)
        while True:
            with told(f"list of steps of cluster {cluster}", self._config):
                answer = self._emr.list_steps(**words)
            yield from answer["Steps"]
            if not (marker := answer.get("Marker")):
                return
            words["Marker"] = marker

    def _described(self, handle: Handle) -> Mapping[str, Any]:
        with told(f"job {handle.name!r}", self._config):
            answer = self._emr.describe_step(ClusterId=handle.parent, StepId=handle.id)
        return answer["Step"]  # type: ignore[no-any-return]

    def _key(self, name: str, parent: Handle) -> str:
        return f"{self._clusters.aws.access} {parent.id} {name}"

    def _handle(self, step: Mapping[str, Any], cluster: str) -> Handle:
        page = self._clusters.page(cluster)
        return Handle(name=step["Name"], id=step["Id"], parent=cluster, url=page)


TO_GCS = "spark.hadoop.fs.gs."  # settings of Google's connector


def _owner(words: Sequence[str]) -> str:
    own = (word.partition("=")[2] for word in words if word.startswith(f"{_OWNER}="))
    return next(own, "")


def _ttl(words: Sequence[str]) -> int:
    if words[:1] == ["timeout"] and len(words) > 2 and words[2][:-1].isdigit():
        return int(words[2][:-1])
    return 0


def _seconds(step: Mapping[str, Any]) -> float:
    times = step["Status"]["Timeline"]
    if "StartDateTime" in times and "EndDateTime" in times:
        return float((times["EndDateTime"] - times["StartDateTime"]).total_seconds())
    return 0.0
