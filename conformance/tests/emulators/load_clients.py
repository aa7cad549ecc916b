"""The clients of the mixed load, unmodified: `load_mixed.py` runs each in a process of its own.

    python load_clients.py s3         does a round for each line that it reads, and answers each
    python load_clients.py s3 kill    says "up" and goes on with something until it is killed

A line is JSON: {"round": 3, "spark": false}, or {"tidy": true}, which takes away what rounds,
faults and killed clients have left on the provider's side.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

SPARK = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
print("counted", spark.range(1000).count())
"""
_LARGE = 12 * 2**20
_PATIENCE = 120.0


def until(done: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + _PATIENCE
    while not (found := done()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)
    return found


class Client(ABC):
    """`round` does all that this client can, `tidy` removes what is left, `endless` never ends."""

    @abstractmethod
    def round(self, number: int, spark: bool) -> None: ...
    @abstractmethod
    def tidy(self) -> None: ...
    @abstractmethod
    def endless(self) -> Iterator[None]:
        """Yields when it is in the middle of something."""


class S3(Client):
    def __init__(self) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig

        self.s3 = boto3.client("s3")
        self.parts = TransferConfig(
            multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20, max_concurrency=3
        )
        with suppress(self.s3.exceptions.BucketAlreadyOwnedByYou):  # who is to be killed is second
            self.s3.create_bucket(Bucket="load")

    def round(self, number: int, spark: bool) -> None:
        names = [f"{number}/{n:03}" for n in range(25)]
        for name in names:
            self.s3.put_object(Bucket="load", Key=name, Body=name.encode() * 500)
        for name in names:
            body = self.s3.get_object(Bucket="load", Key=name)["Body"].read()
            assert body == name.encode() * 500, name
        pages = self.s3.get_paginator("list_objects_v2")
        listed = pages.paginate(
            Bucket="load", Prefix=f"{number}/", PaginationConfig={"PageSize": 10}
        )
        assert [one["Key"] for page in listed for one in page["Contents"]] == names
        whole = number.to_bytes(4, "big") * (_LARGE // 4)
        self.s3.upload_fileobj(io.BytesIO(whole), "load", f"{number}/large", Config=self.parts)
        back = io.BytesIO()
        self.s3.download_fileobj("load", f"{number}/large", back, Config=self.parts)
        assert back.getvalue() == whole

    def tidy(self) -> None:
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket="load"):
            keys = [{"Key": one["Key"]} for one in page.get("Contents", ())]
            if keys:
                self.s3.delete_objects(Bucket="load", Delete={"Objects": keys})
        for one in self.s3.list_multipart_uploads(Bucket="load").get("Uploads", ()):
            self.s3.abort_multipart_upload(Bucket="load", Key=one["Key"], UploadId=one["UploadId"])

    def endless(self) -> Iterator[None]:
        made = self.s3.create_multipart_upload(Bucket="load", Key="never")
        for number in itertools.count(1):
            yield
            self.s3.upload_part(
                Bucket="load", Key="never", UploadId=made["UploadId"],
                PartNumber=number % 100 + 1, Body=bytes(8 * 2**20),
            )  # fmt: skip


class Emr(Client):
    def __init__(self) -> None:
        import boto3

        self.emr, self.s3 = boto3.client("emr"), boto3.client("s3")

    def _cluster(self, number: int, steps: list[dict[str, Any]]) -> str:
        made = self.emr.run_job_flow(
            Name=f"load-{number}", ReleaseLabel="emr-7.1.0", Steps=steps,
            ServiceRole="EMR_DefaultRole", JobFlowRole="EMR_EC2_DefaultRole",
            LogUri="s3://load-emr/logs/",
            Instances={
                "KeepJobFlowAliveWhenNoSteps": True, "MasterInstanceType": "m5.xlarge",
                "InstanceCount": 1,
            },
        )  # fmt: skip
        return str(made["JobFlowId"])

    def round(self, number: int, spark: bool) -> None:
        if number == 0:
            self.s3.create_bucket(Bucket="load-emr")
            self.s3.put_object(Bucket="load-emr", Key="count.py", Body=SPARK.encode())
        steps = [_step(f"light-{n}", "sh", "-c", f"exit {n % 2}") for n in range(5)]
        steps += [_step("spark", "spark-submit", "s3://load-emr/count.py")] if spark else []
        flow = self._cluster(number, steps)
        quick = {"Delay": 1, "MaxAttempts": 120}
        self.emr.get_waiter("cluster_running").wait(ClusterId=flow, WaiterConfig=quick)

        def ended() -> list[str]:
            found = self.emr.list_steps(ClusterId=flow)["Steps"]
            states = [f"{one['Name']} {one['Status']['State']}" for one in found]
            return [] if any("PENDING" in s or "RUNNING" in s for s in states) else states

        states = until(ended, f"the steps of {flow} end")
        wanted = [f"light-{n} {('COMPLETED', 'FAILED')[n % 2]}" for n in reversed(range(5))]
        assert states == ["spark COMPLETED"] * spark + wanted, states
        self.emr.terminate_job_flows(JobFlowIds=[flow])
        self.emr.get_waiter("cluster_terminated").wait(ClusterId=flow, WaiterConfig=quick)

    def _alive(self) -> list[str]:
        states = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]
        pages = self.emr.get_paginator("list_clusters").paginate(ClusterStates=states)
        return [str(one["Id"]) for page in pages for one in page["Clusters"]]

    def tidy(self) -> None:
        if flows := self._alive():
            self.emr.terminate_job_flows(JobFlowIds=flows)
        until(lambda: not self._alive(), "no cluster is left")

    def endless(self) -> Iterator[None]:
        flow = self._cluster(0, [])
        while True:
            yield
            self.emr.add_job_flow_steps(JobFlowId=flow, Steps=[_step("more", "sleep", "600")])
            self.emr.describe_cluster(ClusterId=flow)


def _step(name: str, *words: str) -> dict[str, Any]:
    jar = {"Jar": "command-runner.jar", "Args": list(words)}
    return {"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}


class Serverless(Client):
    def __init__(self) -> None:
        import boto3

        self.emr, self.s3 = boto3.client("emr-serverless"), boto3.client("s3")

    def _application(self, name: str) -> str:
        made = self.emr.create_application(
            name=name, releaseLabel="emr-7.1.0", type="SPARK", clientToken=uuid.uuid4().hex
        )
        return str(made["applicationId"])

    def _run(self, application: str) -> str:
        made = self.emr.start_job_run(
            applicationId=application, clientToken=uuid.uuid4().hex,
            executionRoleArn="arn:aws:iam::123456789012:role/load",
            jobDriver={"sparkSubmit": {"entryPoint": "s3://load-serverless/count.py"}},
        )  # fmt: skip
        return str(made["jobRunId"])

    def round(self, number: int, spark: bool) -> None:
        if number == 0:
            self.s3.create_bucket(Bucket="load-serverless")
            self.s3.put_object(Bucket="load-serverless", Key="count.py", Body=SPARK.encode())
        application = self._application(f"load-{number}")
        self._reach(application, "CREATED")
        run = self._run(application)
        if not spark:  # else it would be Spark: it ends before it begins
            self.emr.cancel_job_run(applicationId=application, jobRunId=run)

        def state() -> str:
            found = self.emr.get_job_run(applicationId=application, jobRunId=run)
            return str(found["jobRun"]["state"])

        until(lambda: state() in ("SUCCESS", "FAILED", "CANCELLED"), f"the run {run} ends")
        assert state() == ("SUCCESS" if spark else "CANCELLED"), state()
        self.emr.list_job_runs(applicationId=application)
        self._end(application)

    def _state(self, application: str) -> str:
        found = self.emr.get_application(applicationId=application)
        return str(found["application"]["state"])

    def _reach(self, application: str, *wanted: str) -> None:
        until(lambda: self._state(application) in wanted, f"{application} is {wanted}")

    def _end(self, application: str) -> None:
        self._reach(application, "CREATED", "STARTED", "STOPPED")
        if self._state(application) == "STARTED":
            self.emr.stop_application(applicationId=application)
            self._reach(application, "STOPPED")
        self.emr.delete_application(applicationId=application)

    def tidy(self) -> None:
        states = ["CREATING", "CREATED", "STARTING", "STARTED", "STOPPING", "STOPPED"]
        for one in self.emr.list_applications(states=states)["applications"]:
            for run in self.emr.list_job_runs(applicationId=one["id"])["jobRuns"]:
                if run["state"] not in ("SUCCESS", "FAILED", "CANCELLED"):
                    self.emr.cancel_job_run(applicationId=one["id"], jobRunId=run["id"])
                    until(lambda: self._ended(one["id"], run["id"]), "the run ends")  # noqa: B023
            self._end(one["id"])

    def _ended(self, application: str, run: str) -> bool:
        found = self.emr.get_job_run(applicationId=application, jobRunId=run)
        return found["jobRun"]["state"] in ("SUCCESS", "FAILED", "CANCELLED")

    def endless(self) -> Iterator[None]:
        application = self._application("killed")
        while True:
            yield
            self._state(application)
            self.emr.list_applications()


class Gcs(Client):
    def __init__(self) -> None:
        from google.api_core.exceptions import Conflict
        from google.cloud import storage

        client = storage.Client()
        self.bucket = client.bucket("load-gcs")
        with suppress(Conflict):
            client.create_bucket(self.bucket)

    def round(self, number: int, spark: bool) -> None:
        names = [f"{number}/{n:03}" for n in range(15)]
        for name in names:
            self.bucket.blob(name).upload_from_string(name * 500)
        for name in names:
            assert self.bucket.blob(name).download_as_text() == name * 500
        listed = [blob.name for blob in self.bucket.list_blobs(prefix=f"{number}/", page_size=5)]
        assert listed == names, listed
        large = self.bucket.blob(f"{number}/large", chunk_size=2**22)
        large.upload_from_file(io.BytesIO(bytes(_LARGE)))
        assert len(large.download_as_bytes()) == _LARGE

    def tidy(self) -> None:
        for blob in self.bucket.list_blobs():
            blob.delete()

    def endless(self) -> Iterator[None]:
        while True:  # not resumable: what came of such an upload is kept for who goes on with it
            yield
            self.bucket.blob("never").upload_from_string(bytes(6 * 2**20))


class Dataproc(Client):
    def __init__(self) -> None:
        from google.cloud import dataproc_v1, storage

        self.where = {"project_id": "portaflow-local", "region": "us-central1"}
        options = {"api_endpoint": "us-central1-dataproc.googleapis.com:443"}
        self.clusters = dataproc_v1.ClusterControllerClient(client_options=options)
        self.jobs = dataproc_v1.JobControllerClient(client_options=options)
        self.store = storage.Client()

    def _create(self, name: str) -> None:
        cluster = {"cluster_name": name, "config": {}}
        asked = {**self.where, "cluster": cluster, "request_id": uuid.uuid4().hex}
        self.clusters.create_cluster(asked).result(timeout=_PATIENCE)

    def _submit(self, cluster: str) -> str:
        job = {
            "placement": {"cluster_name": cluster},
            "pyspark_job": {"main_python_file_uri": "gs://load-dataproc/count.py"},
        }
        made = self.jobs.submit_job({**self.where, "job": job, "request_id": uuid.uuid4().hex})
        return str(made.reference.job_id)

    def round(self, number: int, spark: bool) -> None:
        if number == 0:
            bucket = self.store.create_bucket("load-dataproc")
            bucket.blob("count.py").upload_from_string(SPARK)
        names = [f"load-{number}-{n}" for n in range(2)]
        for name in names:
            self._create(name)
        there = {one.cluster_name for one in self.clusters.list_clusters(self.where)}
        assert there >= set(names), there
        if spark:
            job = self._submit(names[0])
            found = until(lambda: (j := self._job(job)).done and j, f"the job {job} ends")
            output = self._output(found)
            assert found.status.state.name == "DONE", output
            self.jobs.delete_job({**self.where, "job_id": job})
        for name in names:
            self._delete(name)

    def _output(self, job: Any) -> str:
        """What the driver said, which is taken out of the store."""
        bucket, _, prefix = job.driver_output_resource_uri.removeprefix("gs://").partition("/")
        parts = list(self.store.list_blobs(bucket, prefix=prefix))
        said = "".join(part.download_as_text() for part in parts)[-2000:]
        for part in parts:
            part.delete()
        return said

    def _job(self, job: str) -> Any:
        return self.jobs.get_job({**self.where, "job_id": job})

    def _delete(self, name: str) -> None:
        self.clusters.delete_cluster({**self.where, "cluster_name": name}).result(_PATIENCE)

    def tidy(self) -> None:
        for one in self.clusters.list_clusters(self.where):
            until(lambda: self._settled(one.cluster_name), "the cluster is up")  # noqa: B023
            self._delete(one.cluster_name)

    def _settled(self, name: str) -> bool:
        found = self.clusters.get_cluster({**self.where, "cluster_name": name})
        return found.status.state.name in ("RUNNING", "ERROR", "STOPPED")

    def endless(self) -> Iterator[None]:
        cluster = {"cluster_name": f"killed-{uuid.uuid4().hex[:8]}", "config": {}}
        self.clusters.create_cluster({**self.where, "cluster": cluster})
        while True:
            yield
            list(self.clusters.list_clusters(self.where))


class Kubernetes(Client):
    """Pods, Jobs, logs and watches, in a namespace of each round's own."""

    def __init__(self) -> None:
        import kubernetes

        kubernetes.config.load_kube_config()
        self.core, self.batch = kubernetes.client.CoreV1Api(), kubernetes.client.BatchV1Api()
        self.watch = kubernetes.watch.Watch

    def round(self, number: int, spark: bool) -> None:
        space = f"load-{number}"
        self.core.create_namespace({"metadata": {"name": space}})
        names = [f"p{n}" for n in range(8)]
        for name in names:
            self.core.create_namespaced_pod(space, _pod(name, "seq 1 100"))
        seen: set[str] = set()
        for event in self.watch().stream(
            self.core.list_namespaced_pod, space, timeout_seconds=int(_PATIENCE)
        ):
            if event["object"].status.phase == "Succeeded":
                seen.add(event["object"].metadata.name)
            if seen == set(names):
                break
        for name in names:
            text = self.core.read_namespaced_pod_log(name, space, _preload_content=False).data
            assert text.split() == [b"%d" % n for n in range(1, 101)], (name, text)
        spec = {**_pod("", "exit 0"), "metadata": {}}
        job = {
            "metadata": {"name": "job"},
            "spec": {"completions": 4, "parallelism": 2, "template": spec},
        }
        self.batch.create_namespaced_job(space, job)
        until(lambda: self._done(space), f"the job in {space} is complete")

    def _done(self, space: str) -> bool:
        found = self.batch.read_namespaced_job("job", space).status.conditions or ()
        return any(one.type == "Complete" for one in found)

    def _spaces(self) -> list[str]:
        found = [one.metadata.name for one in self.core.list_namespace().items]
        return [name for name in found if name.startswith("load-")]

    def tidy(self) -> None:
        for name in self._spaces():
            self.core.delete_namespace(name, body={"gracePeriodSeconds": 0})
        until(lambda: not self._spaces(), "no namespace is left")

    def endless(self) -> Iterator[None]:
        space = f"load-killed-{uuid.uuid4().hex[:8]}"
        self.core.create_namespace({"metadata": {"name": space}})
        self.core.create_namespaced_pod(space, _pod("talks", "while echo on; do sleep 0.01; done"))
        read = self.core.read_namespaced_pod
        until(lambda: read("talks", space).status.phase == "Running", "the pod runs")
        answer = self.core.read_namespaced_pod_log(
            "talks", space, follow=True, _preload_content=False
        )
        for _ in answer.stream(16):
            yield


def _pod(name: str, script: str) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"metadata": {"name": name}, "spec": spec}


CLIENTS: dict[str, type[Client]] = {
    "s3": S3, "emr": Emr, "serverless": Serverless, "gcs": Gcs, "dataproc": Dataproc,
    "kubernetes": Kubernetes,
}  # fmt: skip


def main(kind: str, *more: str) -> None:
    client = CLIENTS[kind]()
    if more == ("kill",):
        for number, _ in enumerate(client.endless()):
            if number == 2:
                print("up", flush=True)
        return
    for line in sys.stdin:
        order = json.loads(line)
        problem = ""
        try:
            client.tidy() if "tidy" in order else client.round(order["round"], order["spark"])
        except Exception:
            problem = traceback.format_exc()
        print(json.dumps({"problem": problem}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
