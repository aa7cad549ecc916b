"""Pods of real containers, by Podman: as root on Debian what is missing is installed by apt."""

from __future__ import annotations

import fcntl
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import kubernetes
import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.kubernetes import KubernetesEmulator

from .conftest import Cluster

pytestmark = pytest.mark.podman

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]

IMAGE = "portaflow-test/pods:1"
_NEEDED = {"podman": "podman", "runc": "runc", "busybox": "busybox-static"}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CHANGES = (
    'ENTRYPOINT ["/bin/echo", "entry"]', 'CMD ["default"]', "ENV FROM_IMAGE=yes", "WORKDIR /tmp",
)  # fmt: skip


def _without(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _install(lock: Path) -> None:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        missing = [p for name, p in _NEEDED.items() if not shutil.which(name, path=_PATH)]
        if missing and (os.getuid() != 0 or not shutil.which("apt-get")):
            _without(f"real containers need {', '.join(missing)}")
        wait = ["-y", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        for words in (["update"], ["install", "--no-install-recommends", *missing]):
            if missing:
                done = subprocess.run(
                    ["apt-get", *wait, *words], capture_output=True, text=True, timeout=600
                )
        if missing and done.returncode:
            _without(f"apt-get install {' '.join(missing)}: {done.stderr[-2000:]}")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """A Podman with a folder of its own for all that it keeps, and one image."""
    if os.getuid() != 0:
        _without("Podman is run as root here")
    _install(tmp_path_factory.getbasetemp().parent / "apt.lock")
    folder = Path(tempfile.mkdtemp(prefix="pf-pods-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", _PATH)
        for name, text in _settings(folder).items():
            (folder / name).write_text(text)
            key = f"CONTAINERS_{name.partition('.')[0].upper()}_CONF"
            patch.setenv(key.replace("CONTAINERS_CONTAINERS_", "CONTAINERS_"), str(folder / name))

        def run(*words: str) -> str:
            done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        try:
            _make_image(folder, run)
        except AssertionError as error:
            _without(f"Podman does not work here: {error}")
        yield run
        left = run("ps", "--all", "--quiet")
        subprocess.run(["podman", "rm", "-af", "-t0"], capture_output=True, timeout=60)
    for line in Path("/proc/mounts").read_text().splitlines():
        if str(folder) in (mount := line.split()[1]):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, "the stand-in has left a container"


def _settings(folder: Path) -> dict[str, str]:
    """What a machine without systemd and CAP_SYS_RESOURCE needs to run containers at all."""
    files, threads = (
        min(1024, hard) if (hard := resource.getrlimit(kind)[1]) > 0 else 1024
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    limits = f'default_ulimits = ["nofile={files}:{files}", "nproc={threads}:{threads}"]\n'
    engine = (
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'lock_type = "file"\ntmp_dir = "{folder}/tmp"\n'
    )
    return {
        "containers.conf": f"[containers]\n{limits}{engine}",
        "registries.conf": 'short-name-mode = "permissive"\n',
        "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/store"\n'
        f'runroot = "{folder}/run"\n',
    }


def _make_image(folder: Path, run: Callable[..., str]) -> None:
    program = shutil.which("busybox", path=_PATH)
    assert program, "busybox-static was not installed"
    program = os.path.realpath(program)
    names = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        everybodys = tarfile.TarInfo("tmp")
        everybodys.type, everybodys.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(everybodys)
        tar.add(program, "bin/busybox")
        for name in names:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                tar.addfile(link)
    archive = folder / "layer.tar"
    archive.write_bytes(layer.getvalue())
    changes = [word for change in _CHANGES for word in ("--change", change)]
    run("import", "--quiet", *changes, str(archive), IMAGE)


@pytest.fixture(scope="module")
def cluster(podman: Callable[..., str]) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTAFLOW_EMULATE_PODS", "podman")
        with emulate("kubernetes", pace=0.02) as clouds:
            emulator = clouds.emulators["kubernetes"]
            assert isinstance(emulator, KubernetesEmulator)
            one = Cluster(clouds, emulator, kubernetes.client.Configuration())
            yield one
            one.close()


def real(**more: Any) -> dict[str, Any]:
    return {"image": IMAGE, "imagePullPolicy": "IfNotPresent", **more}


def test_image_environment_and_volumes(
    core: Core, ns: str, pod: Pods, ended: Any, log: Any
) -> None:
    core.create_namespaced_config_map(ns, {"metadata": {"name": "c"}, "data": {"k": "from-map"}})
    core.create_namespaced_secret(ns, {"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in "cse"]
    volumes = [
        {"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}},
        {"name": "e", "emptyDir": {}},
    ]  # fmt: skip
    env = [{"name": "A", "value": "b"}, {"name": "PATH", "value": "/bin"}]
    script = (
        "pwd; echo $A $FROM_IMAGE; cat /c/k /s/k; echo; echo x > /e/f && cat /e/f; ls / | wc -l;"
        "echo no > /c/k; hostname; echo told > /dev/termination-log; exit 7"
    )
    pod("p", script, volumes=volumes, container=real(env=env, volumeMounts=mounts))
    pod("q", container=real(command=None))
    pod("r", container=real(command=None, args=["given"], workingDir="/bin"))
    done = ended("p", 60)
    [status] = done.status.container_statuses
    assert done.status.phase == "Failed"
    assert (status.state.terminated.exit_code, status.state.terminated.reason) == (7, "Error")
    assert status.state.terminated.message == "told\n"
    assert status.container_id.startswith("podman://")
    lines = log("p").splitlines()
    assert lines[:4] == ["/tmp", "b yes", "from-maphidden", "x"]
    assert "p" in lines
    assert [(ended(n, 60).status.phase, log(n)) for n in "qr"] == [
        ("Succeeded", "entry default\n"), ("Succeeded", "entry given\n"),
    ]  # fmt: skip


def test_what_cannot_start(core: Core, ns: str, pod: Pods, ended: Any, until: Any) -> None:
    pod("p", container=real(command=["no-such-program"]))
    pod("q", container=real(image="127.0.0.1:1/none:1"))

    def waits() -> Any:
        [status] = core.read_namespaced_pod("q", ns).status.container_statuses or [None]
        return status and status.state.waiting and status.state.waiting.reason

    until(lambda: waits() == "ImagePullBackOff", 60)
    ended_ = ended("p", 60).status.container_statuses[0].state.terminated
    assert (ended_.exit_code, ended_.reason) == (128, "StartError")
    assert "no-such-program" in ended_.message


def test_exec_grace_and_end(
    core: Core, ns: str, pod: Pods, running: Any, beside: Any, log: Any, until: Any
) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    pod("p", script, container=real(env=[{"name": "A", "value": "b"}]))
    running()
    follow = core.read_namespaced_pod_log("p", ns, follow=True, _preload_content=False)
    assert follow.readline() == b"up\n"
    assert beside("sh", "-c", "echo $A; exit 3") == ("b\n", 3)
    core.delete_namespaced_pod("p", ns)
    assert follow.read() == b"asked\n"
    follow.release_conn()
    until(lambda: not core.list_namespaced_pod(ns).items)


def test_security_and_memory(pod: Pods, ended: Any, log: Any) -> None:
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    pod(
        "p", "id -u; id -g; touch /here || echo no; grep NoNewPrivs /proc/self/status",
        securityContext={"runAsUser": 1234, "runAsGroup": 2345, "runAsNonRoot": True},
        container=real(securityContext=security),
    )  # fmt: skip
    limits = {"resources": {"limits": {"memory": "32Mi"}}}
    pod("q", "x=x; while :; do x=$x$x; done", container=real(**limits))
    ended("p", 60)
    said = log("p").splitlines()
    assert [line for line in said if "touch" not in line] == [
        "1234",
        "2345",
        "no",
        "NoNewPrivs:\t1",
    ]
    killed = ended("q", 60).status.container_statuses[0].state.terminated
    assert (killed.exit_code, killed.reason) == (137, "OOMKilled")


def test_nothing_stays(
    core: Core, ns: str, pod: Pods, running: Any, until: Any, podman: Callable[..., str]
) -> None:
    pod("p", "sleep 600", terminationGracePeriodSeconds=0, container=real())
    running()
    assert podman("ps", "--quiet")
    core.delete_namespaced_pod("p", ns)
    until(lambda: not podman("ps", "--all", "--quiet"), 60)


def test_kill_of_the_server_ends_its_containers(
    podman: Callable[..., str], own_tmp: None, until: Any
) -> None:
    client = (
        "import os, signal, sys, time; import kubernetes as k;"
        "k.config.load_kube_config(os.environ['KUBECONFIG']); core = k.client.CoreV1Api();"
        f"c = {{'name': 'c', 'image': '{IMAGE}', 'imagePullPolicy': 'Never',"
        " 'command': ['sleep', '600']};"
        "core.create_namespaced_pod('default', {'metadata': {'name': 'p'},"
        " 'spec': {'containers': [c]}})\n"
        "while core.read_namespaced_pod('p', 'default').status.phase != 'Running':"
        " time.sleep(0.1)\n"
        "os.kill(os.getppid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-m", "portaflow", "emulate", "kubernetes", "--", sys.executable]
    env = {**os.environ, "PORTAFLOW_EMULATE_PODS": "podman"}
    done = subprocess.run([*command, "-c", client], env=env, check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    until(lambda: not podman("ps", "--all", "--quiet"), 60)


def test_unknown_runtime_is_named(own_tmp: None) -> None:
    env = {**os.environ, "PORTAFLOW_EMULATE_PODS": "rocket"}
    done = subprocess.run(
        [sys.executable, "-m", "portaflow", "emulate", "kubernetes", "--", "true"],
        env=env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "PORTAFLOW_EMULATE_PODS is 'rocket'" in done.stderr
    assert "Traceback" not in done.stderr
