"""A cluster of EMR: its states take time, its bootstrap actions and steps are processes."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..control import Fault
from . import commands, releases
from .jobrun import hidden
from .nodes import Nodes, identity
from .rest import ACCOUNT, invalid
from .shop import Shop
from .step import ACTIVE, Step

Json = dict[str, Any]

_MOST_ACTIVE = 256
_TICK = 0.05
_GRACE = 2.0
_CORES = 2000
_QUOTA = (
    f"You have requested more vCPU capacity than your current vCPU limit of {_CORES} allows for "
    "the instance bucket that the specified instance type belongs to. Please visit "
    "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
)
_DEAD = "A job flow that is shutting down, terminated, or finished may not be modified."
_SUBNET = re.compile(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})")
_KEPT = (
    *("Name", "ReleaseLabel", "ServiceRole", "AutoScalingRole", "SecurityConfiguration"),
    *("CustomAmiId", "EbsRootVolumeSize", "EbsRootVolumeIops", "EbsRootVolumeThroughput"),
    *("RepoUpgradeOnBoot", "OSReleaseLabel", "LogEncryptionKmsKeyId"),
    *("MonitoringConfiguration", "SessionEnabled", "ExtendedSupport"),
)
_EC2 = (
    *("Ec2KeyName", "EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup"),
    *("ServiceAccessSecurityGroup", "AdditionalMasterSecurityGroups"),
    "AdditionalSlaveSecurityGroups",
)


class Cluster:
    """`given` is what RunJobFlow was sent. Raises RefusedError when its nodes cannot be."""

    def __init__(self, shop: Shop, region: str, given: Json, fault: Fault | None) -> None:
        self.given, self.region = given, region
        instances = given["Instances"]
        self.nodes = Nodes(instances, releases.instance_types(given["ReleaseLabel"]))
        self.id = identity("j-")
        self.arn = f"arn:aws:elasticmapreduce:{region}:{ACCOUNT}:cluster/{self.id}"
        self.state = "STARTING"
        self.steps: list[Step] = []
        self.tags: dict[str, str] = {}
        self.keep_alive = bool(instances.get("KeepJobFlowAliveWhenNoSteps"))
        self.protected = bool(instances.get("TerminationProtected"))
        self.replaces = bool(instances.get("UnhealthyNodeReplacement"))
        self.visible = given.get("VisibleToAllUsers", True)
        self.concurrency: int = given.get("StepConcurrencyLevel", 1)
        self.auto_termination: Json | None = given.get("AutoTerminationPolicy")
        self.scaling: Json | None = given.get("ManagedScalingPolicy")
        self.lock = threading.RLock()
        self.created = time.time()
        self._shop, self._fault = _shop(shop, self.id, given), fault
        self._log_uri = f"{given['LogUri'].rstrip('/')}/" if given.get("LogUri") else ""
        self._logs = f"{self._log_uri}{self.id}/" if self._log_uri else ""
        self._ready: float | None = None
        self._ended: float | None = None
        self._why: Json = {}
        self._details: list[Json] = []
        self._final = "TERMINATED"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drive, name=f"emr-{self.id}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def hidden(self) -> bool:
        return hidden(self._fault, self.created)

    def status(self) -> Json:
        times = {"ReadyDateTime": self._ready, "EndDateTime": self._ended}
        timeline = {k: v for k, v in times.items() if v is not None}
        told: Json = {
            "State": self.state,
            "StateChangeReason": dict(self._why),
            "Timeline": {"CreationDateTime": self.created, **timeline},
        }
        if self._details:
            told["ErrorDetails"] = self._details
        return told

    def summary(self) -> Json:
        return {
            "Id": self.id,
            "Name": self.given["Name"],
            "Status": self.status(),
            "NormalizedInstanceHours": 0,
            "ClusterArn": self.arn,
        }

    def told(self) -> Json:
        given, instances = self.given, self.given["Instances"]
        subnets = instances.get("Ec2SubnetIds") or [instances.get("Ec2SubnetId")]
        zone = (instances.get("Placement") or {}).get("AvailabilityZone") or f"{self.region}a"
        ec2 = {
            **{k: instances[k] for k in _EC2 if k in instances},
            "Ec2AvailabilityZone": zone,
            "RequestedEc2AvailabilityZones": [],
            "RequestedEc2SubnetIds": [subnet for subnet in subnets if subnet],
            "IamInstanceProfile": given["JobFlowRole"],
        }
        if subnets[0]:
            ec2["Ec2SubnetId"] = subnets[0]
        told = {
            **self.summary(),
            **{k: given[k] for k in _KEPT if k in given},
            "Ec2InstanceAttributes": ec2,
            "InstanceCollectionType": f"INSTANCE_{'FLEET' if self.nodes.fleets else 'GROUP'}",
            "AutoTerminate": not self.keep_alive,
            "TerminationProtected": self.protected,
            "UnhealthyNodeReplacement": self.replaces,
            "VisibleToAllUsers": self.visible,
            "Applications": given.get("Applications") or [{"Name": "Hadoop"}],
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "Configurations": given.get("Configurations", []),
            "ScaleDownBehavior": given.get("ScaleDownBehavior", "TERMINATE_AT_TASK_COMPLETION"),
            "KerberosAttributes": {
                k: v for k, v in given.get("KerberosAttributes", {}).items() if "Password" not in k
            },
            "StepConcurrencyLevel": self.concurrency,
            "PlacementGroups": given.get("PlacementGroupConfigs", []),
        }
        if self._log_uri:  # EMR tells it so, whatever it was given
            told["LogUri"] = re.sub("^s3:", "s3n:", self._log_uri)
        if self.state != "STARTING":
            told["MasterPublicDnsName"] = self.nodes.master.host
        return told

    def need_alive(self) -> None:
        if self.state.startswith("TERMINAT"):
            raise invalid(_DEAD)

    def add_steps(self, given: Iterable[Json], fault: Fault | None) -> list[Step]:
        """Raises RefusedError."""
        new = [Step(self._shop, one, self._logs, fault, self.lock) for one in given]
        with self.lock:
            self.need_alive()
            if sum(step.state in ACTIVE for step in self.steps) + len(new) > _MOST_ACTIVE:
                raise invalid(
                    "Maximum number of active steps(State = 'Running', 'Pending' or "
                    "'Cancel_Pending') for cluster exceeded."
                )
            if self.concurrency > 1 and any(step.on_failure != "CONTINUE" for step in new):
                raise invalid(
                    "ActionOnFailure must be CONTINUE when the cluster's StepConcurrencyLevel is "
                    "greater than 1."
                )
            self.steps += new
        return new

    def cancel(self, ids: Sequence[str], grace: float = _GRACE) -> list[Json]:
        known, told = {step.id: step for step in self.steps}, []
        for id in ids:
            step = known.get(id)
            answer = {"StepId": id, "Status": "SUBMITTED"}
            if step is None:
                answer |= {"Status": "FAILED", "Reason": f"Step id '{id}' is not valid."}
            elif not step.cancel(grace):
                why = f"Step is in {step.state} state and cannot be cancelled."
                answer |= {"Status": "FAILED", "Reason": why}
            told.append(answer)
        return told

    def finish(
        self,
        code: str,
        message: str,
        final: str = "TERMINATED",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        with self.lock:
            if self._over.is_set():
                return
            self._why = {"Code": code, "Message": message}
            self._details = [dict(details)] if details else []
            self._final = final
            self.state = "TERMINATING"
            self._over.set()
        for step in self.steps:
            step.cancel(_GRACE)

    def join(self) -> None:
        self._thread.join()

    def _fail(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.finish(code, message, "TERMINATED_WITH_ERRORS", details)

    def _drive(self) -> None:
        third = self._shop.pace * 2 / 3
        if self._fault and self._fault.effect == "hang":
            self._over.wait()
        if not self._over.wait(third):
            self._provision()
        self._become("BOOTSTRAPPING")
        for number, action in enumerate(self.given.get("BootstrapActions", ()), 1):
            if not self._over.is_set():
                self._bootstrap(number, action)
        if not self._over.wait(third):
            self._ready = time.time()
        self._work()
        for step in self.steps:
            step.join()
        shutil.rmtree(self._shop.folder, ignore_errors=True)
        time.sleep(third)
        with self.lock:
            self._ended = time.time()
            self.state = self._final

    def _become(self, state: str) -> None:
        with self.lock:
            if not self._over.is_set():
                self.state = state

    def _provision(self) -> None:
        """Get the machines, in which orders and networks have their say."""
        effect = self._fault.effect if self._fault else ""
        instances = self.given["Instances"]
        subnets = [instances.get("Ec2SubnetId"), *instances.get("Ec2SubnetIds", ())]
        if effect == "fail":
            self._fail("INTERNAL_ERROR", "An internal error occurred: a fault on order")
        elif effect == "capacity" and self.nodes.fleets and self.nodes.spot():
            why = "The timeout for provisioning the Spot instances of a fleet has expired."
            self._fail("INSTANCE_FLEET_TIMEOUT", why, _capacity(self.nodes))
        elif effect == "capacity":
            kind = self.nodes.master.type
            why = f"EC2 has insufficient capacity for {kind} in {self.region}a."
            self._fail("INTERNAL_ERROR", why, _capacity(self.nodes))
        if sum(group.cores for group in self.nodes.groups) > _CORES:
            self._fail("VALIDATION_ERROR", _QUOTA)
        for subnet in subnets:
            if subnet and not _SUBNET.fullmatch(subnet):
                self._fail("VALIDATION_ERROR", f"The subnet ID '{subnet}' does not exist")

    def _bootstrap(self, number: int, action: Json) -> None:
        master = self.nodes.master.ec2
        folder = self._shop.folder / "bootstrap-actions" / str(number)
        folder.mkdir(parents=True)
        what = action["ScriptBootstrapAction"]
        path, args = what["Path"], what.get("Args", [])
        said, failed = f"INFO Executing {path} {' '.join(args)}\n", ""
        code: int | None = None
        try:
            running = commands.script(self._shop, path, args, folder)
        except commands.CannotRunError as error:
            said += f"ERROR {error}\n"
            kind = "BOOTSTRAP_FAILURE_BA_DOWNLOAD_FAILED_PRIMARY"
            failed = f"Master instance ({master}) failed attempting to download bootstrap action "
            failed += f"{number} file from S3"
        else:
            while (code := running.poll()) is None and not self._over.wait(_TICK):
                pass
            running.stop()
            said += f"INFO Execution ended with ret val {running.poll()}\n"
            kind = "BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE"
            if code:
                failed = f"On the master instance ({master}), bootstrap action {number} returned a "
                failed += "non-zero return code"
        (folder / "controller").write_text(said, "utf-8")
        if self._logs:
            for name in ("controller", "stdout", "stderr"):
                uri = f"{self._logs}node/{master}/bootstrap-actions/{number}/{name}.gz"
                self._shop.keep_log(folder / name, uri, "aws:emr.logs-lost")
        if failed:
            data = {"instance-id": master, "bootstrap-action": str(number)}
            details = {"ErrorCode": kind, "ErrorData": [data], "ErrorMessage": failed}
            self._fail("BOOTSTRAP_FAILURE", failed, details)

    def _work(self) -> None:
        """Run the steps until there is a reason to end."""
        idle = self._shop.control.now()
        while not self._over.is_set():
            with self.lock:
                busy = self._tick()
                if busy:
                    idle = self._shop.control.now()
                self._look(busy, self._shop.control.now() - idle)
            self._over.wait(_TICK)

    def _look(self, busy: bool, idle: float) -> None:
        """End when there is nothing to do, or an order to die."""
        if not (busy or self.keep_alive or any(step.state in ACTIVE for step in self.steps)):
            self.finish("ALL_STEPS_COMPLETED", "Steps completed")
        if self.auto_termination and idle > self.auto_termination["IdleTimeout"]:
            self.finish("ALL_STEPS_COMPLETED", "Auto-terminated: the cluster was idle")
        if self._fault and self._fault.effect == "die":
            late = time.time() > (self._ready or 0) + self._fault.seconds
            if late if self._fault.seconds else busy:
                self._fail("INSTANCE_FAILURE", "The master node was terminated")

    def _tick(self) -> bool:
        """Start the steps whose turn it is; whether any runs."""
        running = sum(step.state in ACTIVE[1:] for step in self.steps)
        for step in self.steps:
            if running < self.concurrency and not self._over.is_set():
                running += step.start(self._ended_step)
        self._become("RUNNING" if running else "WAITING")
        return running > 0

    def _ended_step(self, step: Step) -> None:
        if step.state != "FAILED" or step.on_failure == "CONTINUE" or self.concurrency > 1:
            return
        if step.on_failure == "TERMINATE_CLUSTER" and not self.protected:
            self._fail("STEP_FAILURE", "Shut down as step failed")
            return
        for other in self.steps:
            if other.state == "PENDING":
                other.cancel(_GRACE)


def _shop(shop: Shop, id: str, given: Json) -> Shop:
    """Where its steps work, with what its configurations give all of its Spark."""
    conf: dict[str, str] = {}
    env: dict[str, str] = {}
    for one in given.get("Configurations", ()):
        kind, properties = one.get("Classification"), one.get("Properties", {})
        if kind == "spark-defaults":
            conf |= properties
        elif kind == "core-site":
            conf |= {f"spark.hadoop.{name}": value for name, value in properties.items()}
        elif kind == "spark-env":
            for export in one.get("Configurations", ()):
                env |= export.get("Properties", {})
    return shop.below(id, conf, env)


def _capacity(nodes: Nodes) -> Json:
    kind = "INTERNAL_ERROR_SPOT_NO_CAPACITY_PRIMARY"
    if not nodes.spot():
        kind = "INTERNAL_ERROR_EC2_INSUFFICIENT_CAPACITY_AZ"
    return {"ErrorCode": kind, "ErrorData": [{"instance-type": nodes.master.type}]}
