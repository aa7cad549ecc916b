"""Spark jobs as drivers' pods: what is asked of the cluster. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from portaflow_kubernetes.spark import Config, SparkKubernetes

from portaflow.backend import JobSpec, Size, Verdict
from portaflow.errors import RejectedError

PLAIN = JobSpec(main="s3a://b/main.py", owner="o-1", ttl=60, grace=7)


def asked(config: Config | None = None, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The driver's pod, and the words of its spark-submit."""
    driver = SparkKubernetes(config or Config()).jobs
    request = driver.request("pf-x-1", replace(PLAIN, **fields))
    pod: dict[str, Any] = request["spec"]["template"]["spec"]
    return pod, pod["containers"][0]["args"]


def conf(words: list[str]) -> dict[str, str]:
    given = (words[i + 1] for i, word in enumerate(words) if word == "--conf")
    return dict(setting.split("=", 1) for setting in given)


def test_there_are_no_clusters() -> None:
    assert SparkKubernetes(Config()).clusters is None


def test_a_job_is_a_pod_that_submits_to_its_own_cluster() -> None:
    pod, words = asked(
        args=("$HOME", "a b"), py_files=("s3a://b/a.py", "s3a://b/b.zip"), jars=("s3a://b/c.jar",),
        packages=("g:a:1",), conf={"spark.x": "a=b, c"}, env={"A": "1"},
    )  # fmt: skip
    assert pod["terminationGracePeriodSeconds"] == 7
    assert pod["serviceAccountName"] == "spark"
    assert words[-3:] == ["s3a://b/main.py", "$$HOME", "a b"]
    assert words[words.index("--py-files") + 1] == "s3a://b/a.py,s3a://b/b.zip"
    assert words[words.index("--jars") + 1] == "s3a://b/c.jar"
    assert words[words.index("--packages") + 1] == "g:a:1"
    assert conf(words)["spark.x"] == "a=b, c"


def test_a_size_is_that_of_an_executor_with_all_that_is_no_heap() -> None:
    settings = conf(asked(Config(executors=3), size=Size(cpu=2, memory=4))[1])
    assert settings["spark.executor.instances"] == "3"
    assert settings["spark.executor.cores"] == "2"
    assert settings["spark.executor.memory"] == "3072m"
    assert settings["spark.executor.memoryOverhead"] == "1024m"


def test_executors_have_the_walls_and_the_settings_of_all_pods() -> None:
    template = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    config = Config(node_selector={"a": "b"}, pod_template=template)
    pod, _ = asked(config, env={"A": "$(B)"}, secrets={"S": "name/key"}, size=Size(gpu=1))
    env = {e["name"]: e for e in pod["containers"][0]["env"]}
    executor = json.loads(env["PORTAFLOW_EXECUTOR"]["value"].replace("$$", "$"))
    labels = {"portaflow.owner": "o-1", "portaflow.name": "pf-x-1"}
    assert executor["metadata"]["labels"] == labels
    assert executor["spec"]["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    for one in (pod, executor["spec"]):
        box = one["containers"][0]
        assert one["securityContext"]["runAsUser"] == 185
        assert one["nodeSelector"] == {"a": "b"}
        assert one["volumes"] == [{"name": "v", "emptyDir": {}}]
        assert box["securityContext"]["allowPrivilegeEscalation"] is False
        secret = next(e for e in box["env"] if e["name"] == "S")
        assert secret["valueFrom"] == {"secretKeyRef": {"name": "name", "key": "key"}}
        assert {"name": "A", "value": "$$(B)"} in box["env"]
    assert executor["spec"]["activeDeadlineSeconds"] == 60
    assert executor["spec"]["automountServiceAccountToken"] is False


def test_what_spark_is_told_by_us_is_refused_and_a_main_is_needed() -> None:
    driver = SparkKubernetes(Config()).jobs
    spec = JobSpec(main="a.py", conf={"spark.master": "local"}, size=Size(disk=50, memory=0.5))
    fits = driver.fit(spec)
    assert fits["conf"].verdict is Verdict.REFUSED
    assert "spark.master" in fits["conf"].reason
    assert fits["size.disk"].verdict is Verdict.APPROXIMATED
    assert fits["size.memory"].verdict is Verdict.APPROXIMATED
    assert "864 MiB" in fits["size.memory"].reason
    of_target = SparkKubernetes(Config(conf={"fs.x": "y"})).jobs
    assert "begins with spark." in of_target.fit(PLAIN)["conf"].reason
    assert not driver.fit(PLAIN)
    with pytest.raises(RejectedError, match="main"):
        driver.request("pf-x-1", JobSpec())
    with pytest.raises(RejectedError, match="executors = 0"):
        asked(Config(executors=0))
