"""Who we are and what we may do: found, told with the fix when it is wrong, and within seconds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from portaflow_kubernetes import doctor
from portaflow_kubernetes.api import connect, refusal
from portaflow_kubernetes.containers import Config, Kubernetes
from portaflow_kubernetes.spark import Config as SparkConfig
from portaflow_kubernetes.spark import SparkKubernetes

from portaflow.backend import Finding
from portaflow.errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)

from .field import Field

SECONDS = 15.0  # in which each of these errors must be told


def refused(kind: type[BackendError], backend: Kubernetes) -> str:
    """What is told when a container is started."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        backend.containers.start(backend.containers.request("pf-x-1", Field.plain))
    assert time.monotonic() - began < SECONDS
    return str(caught.value)


def findings(backend: Kubernetes) -> dict[str, Finding]:
    return {finding.what: finding for finding in backend.check()}


def changed(field: Field, folder: Path, **user: Any) -> Kubernetes:
    """A backend whose kubeconfig has other credentials, or another server."""
    config = json.loads(Path(field.emulator.kubeconfig).read_text())
    if server := user.pop("server", ""):
        config["clusters"][0]["cluster"]["server"] = server
    for entry in config["users"] if user else ():
        entry["user"] = user
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    return field.with_config(kubeconfig=file)


def test_all_is_well(field: Field) -> None:
    found = field.with_config(service_account="default").check()
    assert [f for f in found if not f.ok] == []


def test_wrong_credentials(field: Field, tmp_path: Path) -> None:
    backend = changed(field, tmp_path, token="not-a-token-4711")
    text = refused(DeniedError, backend)
    assert "does not know who we are" in text
    assert "set this machine's clock" in text  # a cloud's tokens are for some minutes
    assert "log in again" in text
    assert "4711" not in text
    assert not findings(backend)["credentials"].ok


def test_credentials_that_were_replaced_are_read_again(field: Field, tmp_path: Path) -> None:
    backend = changed(field, tmp_path, token="old")
    refused(DeniedError, backend)
    good = Path(field.emulator.kubeconfig).read_text()
    (tmp_path / "kubeconfig").write_text(good)
    assert backend.containers.find("pf-x-1") is None


def test_no_permission(field: Field) -> None:
    backend = field.with_config(context="viewer")
    text = refused(DeniedError, backend)
    assert "cannot create resource" in text
    assert "kubectl auth can-i" in text
    found = findings(backend)
    assert found["may list jobs"].ok
    assert not found["may create jobs"].ok
    assert "kubectl create role" in found["may create jobs"].fix


def test_a_namespace_that_is_not_there(field: Field) -> None:
    backend = field.with_config(namespace="no-such")
    text = refused(NotFoundError, backend)
    assert '"no-such" not found' in text
    assert "kubectl create namespace no-such" in text
    assert findings(backend)["namespace no-such"].fix == "kubectl create namespace no-such"


def test_what_pods_need_and_is_not_there(field: Field) -> None:
    found = findings(field.with_config(service_account="who", image_pull_secrets=("registry",)))
    assert "kubectl create serviceaccount who" in found["service account who"].fix
    assert "kubectl create secret" in found["image pull secret registry"].fix


def test_the_account_of_spark_must_be_allowed_to_make_pods(field: Field) -> None:
    """Whom the review is about is the stand-in's to say, by its roles."""
    what, where = "service account one may make pods", f"-n {field.namespace}"
    field.make(f"namespaces/{field.namespace}/serviceaccounts", {"metadata": {"name": "one"}})
    assert not of_spark(field, "two")["service account two may make pods"].ok
    bad = of_spark(field, "one")[what]
    assert bad.detail == f"it may not {', '.join(doctor.MAKING)} them"
    assert f"--serviceaccount={field.namespace}:one {where}" in bad.fix
    grant(field, "one", *doctor.MAKING[1:])
    bad = of_spark(field, "one")[what]
    assert bad.detail == "it may not create them"
    assert f"--verb={','.join(doctor.MAKING)} --resource=pods {where}" in bad.fix
    unasked = of_spark(field, "one", context="viewer")[what]
    assert unasked.ok
    assert f"as=system:serviceaccount:{field.namespace}:one {where}" in unasked.detail
    grant(field, "one", "create")
    assert of_spark(field, "one")[what].ok


def test_an_image_is_looked_for_on_the_nodes(field: Field) -> None:
    name = f"registry.example.com/{field.namespace}"
    unknown = of_spark(field, "one", image=name)[f"image {name}"]
    assert unknown.ok
    assert "on no node yet; whether its registry gives it is not asked" in unknown.detail
    field.wait(field.start("exit 0", image=f"{name}:latest"))
    assert of_spark(field, "one", image=name)[f"image {name}"].detail == "on node portaflow"
    assert field.backend.check_image(name).detail == "on node portaflow"
    wrong = of_spark(field, "one", image="No Name")["image No Name"]
    assert not wrong.ok
    assert "correct `image`" in wrong.fix


def of_spark(field: Field, account: str, **changes: Any) -> dict[str, Finding]:
    whose = {"kubeconfig": field.backend.config.kubeconfig, "namespace": field.namespace}
    config = SparkConfig(**whose, service_account=account, **changes)
    return {finding.what: finding for finding in SparkKubernetes(config).check()}


def grant(field: Field, account: str, *verbs: str) -> None:
    name, group = f"may-{verbs[0]}", "rbac.authorization.k8s.io"
    where = f"/apis/{group}/v1/namespaces/{field.namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}]
    field.api.call("POST", f"{where}/roles", {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": field.namespace}
    role = {"apiGroup": group, "kind": "Role", "name": name}
    body = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    field.api.call("POST", f"{where}/rolebindings", body)


def test_a_server_that_is_not_there(field: Field, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    backend = changed(field, tmp_path, server=f"https://127.0.0.1:{port}")
    text = refused(UnavailableError, backend)
    assert str(port) in text
    assert "kubectl cluster-info" in text
    assert not findings(backend)["cluster"].ok


def test_a_server_that_says_nothing(field: Field, tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        server = f"https://127.0.0.1:{mute.getsockname()[1]}"
        assert "timed out" in refused(UnavailableError, changed(field, tmp_path, server=server))


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert str(tmp_path / "none") in refused(DeniedError, Kubernetes(Config()))
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "set KUBECONFIG" in refused(DeniedError, Kubernetes(Config()))


def test_a_context_that_is_not_there(field: Field) -> None:
    assert "nowhere" in refused(DeniedError, field.with_config(context="nowhere"))


def test_the_environment_names_the_cluster(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(field.emulator.kubeconfig))
    connection = connect()
    assert connection.namespace == "default"
    assert connection.client.configuration.host == field.emulator.url
    connection.client.close()


def test_a_connection_of_airflow_needs_airflow() -> None:
    text = refused(DeniedError, Kubernetes(Config(connection="here")))
    assert "pip install apache-airflow-providers-cncf-kubernetes" in text


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (400, "bad", RejectedError),
        (401, "Unauthorized", DeniedError),
        (403, "no", DeniedError),
        (403, "exceeded quota: small", QuotaError),
        (404, "not there", NotFoundError),
        (409, "exists", ConflictError),
        (422, "invalid", RejectedError),
        (429, "later", UnavailableError),
        (500, "oh", UnavailableError),
        (504, "late", UnavailableError),
    ],
)
def test_an_answer_of_the_cluster_is_an_error_of_ours(
    code: int, message: str, kind: type[BackendError]
) -> None:
    error = refusal(code, json.dumps({"message": message}).encode())
    assert type(error) is kind
    assert message in str(error)
    assert type(refusal(code, b"<html>")) in (kind, DeniedError)


def test_neither_a_plan_nor_an_import_loads_the_sdk() -> None:
    script = (
        "import sys; from portaflow_kubernetes.containers import *;"
        "from portaflow.backend import ContainerSpec;"
        "Kubernetes(Config()).containers.request('a', ContainerSpec(image='b'));"
        "sys.exit(any(m.partition('.')[0] in ('kubernetes', 'urllib3') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
