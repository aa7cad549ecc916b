"""Dataproc's batches: google.cloud.dataproc.v1.BatchController. They really run."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from google.cloud.dataproc_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from ..control import Fault
from ..spark import cores
from . import checks
from .driver import Run, Shop, batch_env
from .paging import matches, page, terms
from .rpc import Call, Code, RefusedError, Service, invalid, not_found
from .world import Operations, World, copied, stamp

State: Any = types.Batch.State

_PARENT = re.compile(r"projects/([^/]+)/(?:locations|regions)/([^/]+)")
_NAME = re.compile(_PARENT.pattern + r"/batches/([^/]+)")
_ENDED = ("CANCELLED", "SUCCEEDED", "FAILED")
_TTL = 4 * 3600.0
_EXECUTORS = 2  # of a batch that names no number
_KEPT = 5000  # batches that have ended


@dataclass(slots=True)
class Batch:
    message: Any
    number: int
    operation: Any
    fault: Fault | None
    hidden: float
    ends: float  # by the control's clock
    run: Run | None = None
    broken: str = ""

    @property
    def state(self) -> str:
        return str(State(self.message.state).name)

    @property
    def done(self) -> bool:
        return self.state in _ENDED

    def enter(self, state: int, text: str = "") -> None:
        message = self.message
        if message.state:
            history = message.state_history.add()
            history.state, history.state_message = message.state, message.state_message
            history.state_start_time.CopyFrom(message.state_time)
        message.state, message.state_message = state, text
        message.state_time.CopyFrom(stamp())


class Batches:
    def __init__(self, world: World, operations: Operations, shop: Shop) -> None:
        self._world, self._operations, self._shop = world, operations, shop
        self._all: dict[str, Batch] = {}
        self._asked: dict[str, str] = {}  # request id -> name

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "CreateBatch": (types.CreateBatchRequest, self._create),
            "GetBatch": (types.GetBatchRequest, self._get),
            "ListBatches": (types.ListBatchesRequest, self._list),
            "DeleteBatch": (types.DeleteBatchRequest, self._delete),
        }
        return Service("dataproc", methods, frozenset(("CreateBatch",)))

    def stop(self) -> None:
        with self._world.lock:
            runs = [batch.run for batch in self._all.values() if batch.run and not batch.done]
        for run in runs:
            run.end()
        for run in runs:
            run.stop()

    def _create(self, request: Any, call: Call) -> Any:
        if not (parent := _PARENT.fullmatch(request.parent)):
            raise invalid(f"Invalid parent: '{request.parent}'")
        project, region = parent.groups()
        checks.check_place(project, region, request.request_id)
        with self._world.lock:
            known = self._all.get(self._asked.get(request.request_id, ""))
            if request.request_id and known is not None:
                return copied(known.operation)
            short = request.batch_id or uuid.uuid4().hex
            checks.check_batch(request.batch, short)
            name = f"projects/{project}/locations/{region}/batches/{short}"
            if name in self._all:
                text = f"Already exists: Failed to create batch: Batch {name}"
                raise RefusedError(Code.ALREADY_EXISTS, text)
            message = copied(request.batch)
            message.name, message.uuid = name, str(uuid.uuid4())
            message.creator = call.principal
            message.create_time.CopyFrom(stamp())
            message.runtime_config.version = message.runtime_config.version or "2.3"
            message.labels["goog-dataproc-batch-id"] = short
            message.labels["goog-dataproc-batch-uuid"] = message.uuid
            message.labels["goog-dataproc-location"] = region
            self._output(message, project, region)
            operation = self._operations.begin(
                f"projects/{project}/regions/{region}",
                self._metadata(message),
                cancel=lambda: self._cancel(batch),
            )
            message.operation = operation.name
            execution = message.environment_config.execution_config
            ttl = float(execution.ttl.seconds) if execution.HasField("ttl") else _TTL
            now = self._world.now()
            hidden = self._world.hidden_until(call.fault)
            batch = Batch(message, self._world.number(), operation, call.fault, hidden, now + ttl)
            batch.enter(State.PENDING)
            self._all[name] = batch
            if request.request_id:
                self._asked[request.request_id] = name
            self._world.watched[name] = lambda: self._look(batch)
            if not (call.fault and call.fault.effect == "hang"):
                self._world.after(0.2, lambda: self._begin(batch))
            self._forget()
            return copied(operation)

    def _output(self, message: Any, project: str, region: str) -> None:
        execution = message.environment_config.execution_config
        bucket = execution.staging_bucket
        if bucket:
            checks.check_bucket(bucket, self._shop.objects)
        else:
            bucket = f"dataproc-staging-{region}-{project}"
            self._shop.objects.ensure_bucket(bucket)
        folder = f"google-cloud-dataproc-metainfo/{message.uuid}/jobs/srvls-batch-{message.uuid}"
        message.runtime_info.output_uri = f"gs://{bucket}/{folder}/driveroutput"

    def _forget(self) -> None:
        ended = [name for name, batch in self._all.items() if batch.done]
        for name in ended[: max(len(ended) - _KEPT, 0)]:
            del self._all[name]
        self._asked = {a: name for a, name in self._asked.items() if name in self._all}

    @staticmethod
    def _metadata(message: Any) -> Any:
        return types.BatchOperationMetadata.pb()(
            batch=message.name,
            batch_uuid=message.uuid,
            create_time=message.create_time,
            operation_type=types.BatchOperationMetadata.BatchOperationType.BATCH,
            description="Batch",
            labels=dict(message.labels),
        )

    def _begin(self, batch: Batch) -> None:
        if batch.state != "PENDING":
            return
        if batch.fault and batch.fault.effect == "fail":
            self._ended(batch, State.FAILED, "Insufficient resources: a fault on order")
            return
        message = batch.message
        work = getattr(message, message.WhichOneof("batch_config"))
        properties = dict(message.runtime_config.properties)
        if why := checks.over_quota(cores(properties, _EXECUTORS)):
            self._ended(batch, State.FAILED, why)
            return
        batch.run = Run(
            self._shop, f"batch-{message.uuid}", work, conf=properties,
            env=batch_env(properties), uri=message.runtime_info.output_uri,
        )  # fmt: skip

    def _look(self, batch: Batch) -> None:
        run = batch.run
        if self._world.now() >= batch.ends and not batch.broken:
            batch.broken = "The batch's time to live is over."
            self._cancel(batch)
        if run is None or batch.done:
            return
        if batch.state == "PENDING" and run.started:
            batch.enter(State.RUNNING)
            if batch.fault and batch.fault.effect == "die":
                batch.broken = "The driver was killed: a fault on order"
                run.end()
        code = run.look()
        if code is None:
            return
        if batch.state == "CANCELLING":
            self._ended(batch, State.CANCELLED, batch.broken)
        elif batch.broken:
            self._ended(batch, State.FAILED, batch.broken)
        elif code:
            told = f"message [{run.error}]" if run.error else f"exit code {code}"
            text = f"Job failed with {told}. {run.problem}".strip()
            where = f"Driver output is in {batch.message.runtime_info.output_uri}.*"
            self._ended(batch, State.FAILED, f"{text} {where}")
        else:
            self._ended(batch, State.SUCCEEDED)

    def _ended(self, batch: Batch, state: int, text: str = "") -> None:
        batch.enter(state, text)
        self._world.watched.pop(batch.message.name, None)
        metadata = self._metadata(batch.message)
        metadata.done_time.CopyFrom(stamp())
        if batch.state == "SUCCEEDED":
            self._operations.finish(batch.operation, batch.message, metadata)
            return
        code = Code.CANCELLED if batch.state == "CANCELLED" else Code.ABORTED
        why = text or "The batch was cancelled."
        self._operations.fail(batch.operation, code, why, metadata)

    def _cancel(self, batch: Batch) -> None:
        if batch.done or batch.state == "CANCELLING":
            return
        batch.enter(State.CANCELLING, batch.broken)
        if batch.run is not None:
            batch.run.end()
        else:
            self._world.after(0.1, lambda: self._ended(batch, State.CANCELLED, batch.broken))

    def _found(self, name: str) -> Batch:
        parts = _NAME.fullmatch(name)
        if not parts:
            raise invalid(f"Invalid batch name: '{name}'")
        checks.check_place(*parts.groups()[:2])
        whole = "projects/{}/locations/{}/batches/{}".format(*parts.groups())
        if (found := self._all.get(whole)) is None:
            raise not_found(f"Batch {whole}")
        return found

    def _get(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            return copied(self._found(request.name).message)

    def _list(self, request: Any, call: Call) -> Any:
        if not (parent := _PARENT.fullmatch(request.parent)):
            raise invalid(f"Invalid parent: '{request.parent}'")
        if request.order_by not in ("", "create_time", "create_time desc", "create_time asc"):
            raise invalid(f"Invalid order: '{request.order_by}'")
        checks.check_place(*parent.groups())
        wanted = terms(request.filter)
        inside = "projects/{}/locations/{}/".format(*parent.groups())
        sign = 1 if request.order_by in ("create_time", "create_time asc") else -1
        with self._world.lock:
            now = self._world.now()
            found = [
                batch
                for name, batch in self._all.items()
                if name.startswith(inside)
                and batch.hidden <= now
                and matches(wanted, _fields(batch), batch.message.labels)
            ]
            shown, token = page(
                found, request.page_size, request.page_token, lambda b: sign * b.number
            )
            answer = types.ListBatchesResponse.pb()(next_page_token=token)
            answer.batches.extend(batch.message for batch in shown)
            return answer

    def _delete(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            batch = self._found(request.name)
            if not batch.done:
                text = f"Batch is {batch.state}: only one that has ended can be deleted"
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            del self._all[batch.message.name]
        return empty_pb2.Empty()


def _fields(batch: Batch) -> dict[str, Any]:
    message = batch.message
    return {
        "batch_id": message.name.rpartition("/")[2],
        "batch_uuid": message.uuid,
        "state": batch.state,
        "create_time": message.create_time.ToNanoseconds() / 1e9,
    }
