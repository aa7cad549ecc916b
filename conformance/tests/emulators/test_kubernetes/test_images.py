"""Images that are folders, and what pods have from their node."""

from __future__ import annotations

import time
from pathlib import Path

import kubernetes
import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate

from portaflow.errors import RunError

DOCKERFILE = """
FROM python:3.11-slim
# a comment \\
ENV GREETING="hello world" \\
    OTHER=$GREETING
WORKDIR /app
WORKDIR sub
COPY requirements.txt .
RUN pip install -r requirements.txt
ENTRYPOINT ["python", "main.py"]
CMD ["by", "default"]
"""
MAIN = """
import os, sys
try:
    import kubernetes
except ImportError:
    kubernetes = None
open("written", "w").close()
print(os.getcwd(), os.environ["GREETING"], sys.argv[1:], sys.prefix, kubernetes)
"""


def folder(at: Path, dockerfile: str = DOCKERFILE) -> Path:
    at.mkdir()
    (at / "Dockerfile").write_text(dockerfile)
    (at / "requirements.txt").write_text("\n")
    (at / "main.py").write_text(MAIN)
    return at


def ran(clouds: Clouds, **container: object) -> str:
    """What a pod has logged when it has ended."""
    path = clouds.env["KUBECONFIG"]
    client = kubernetes.config.new_client_from_config(path, persist_config=False)
    core = kubernetes.client.CoreV1Api(client)
    try:
        box = {"name": "main", **container}
        meta = {"generateName": "p-"}
        pod = {"metadata": meta, "spec": {"restartPolicy": "Never", "containers": [box]}}
        name = core.create_namespaced_pod("default", pod).metadata.name
        deadline = time.monotonic() + 60
        while True:
            phase = core.read_namespaced_pod(name, "default").status.phase
            if phase in ("Succeeded", "Failed"):
                raw = core.read_namespaced_pod_log(name, "default", _preload_content=False)
                log: str = raw.data.decode()
                assert phase == "Succeeded", (log, core.read_namespaced_pod(name, "default").status)
                return log
            assert time.monotonic() < deadline, phase
            time.sleep(0.05)
    finally:
        client.rest_client.pool_manager.clear()
        client.close()


def test_a_folder_is_an_image_with_an_environment_of_its_own(tmp_path: Path) -> None:
    own = folder(tmp_path / "image")
    with emulate("kubernetes", pace=0.02, images={"mine:1": own}) as clouds:
        told = "/app/sub hello world ['by', 'default'] /opt/image None\n"
        assert ran(clouds, image="mine:1") == told
        assert "['other']" in ran(clouds, image="mine:1", args=["other"])
        assert ran(clouds, image="mine:1", command=["pwd"]) == "/app/sub\n"
        assert ran(clouds, image="mine:1", command=["pwd"], workingDir="/") == "/\n"
    assert not (own / "written").exists()


@pytest.mark.parametrize(
    ("text", "told"), [("HEALTHCHECK NONE", "HEALTHCHECK"), ("", "Dockerfile")]
)
def test_what_is_no_image_is_told_before_anything_runs(
    tmp_path: Path, text: str, told: str
) -> None:
    own = folder(tmp_path / "image", text)
    if not text:
        (own / "Dockerfile").unlink()
    with pytest.raises(RunError, match=told), emulate("kubernetes", images={"mine": own}):
        pass


def test_a_pod_reaches_the_stand_ins_beside_it_as_any_user() -> None:
    script = (
        "import boto3; s = boto3.client('s3'); s.create_bucket(Bucket='of-a-pod');"
        "s.put_object(Bucket='of-a-pod', Key='k', Body=b'v');"
        "print(s.get_object(Bucket='of-a-pod', Key='k')['Body'].read())"
    )
    with emulate("aws", "kubernetes", pace=0.02) as clouds:
        box = {"image": "python", "command": ["python3", "-c", script]}
        context = {"runAsUser": 1000, "runAsNonRoot": True}
        assert ran(clouds, **box, securityContext=context) == "b'v'\n"
