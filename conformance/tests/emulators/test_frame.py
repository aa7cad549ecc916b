"""The frame of the local clouds: who reaches what, and what is there when it is over."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
from portaflow_conformance.emulators.clouds import EMULATORS, Clouds, emulate
from portaflow_conformance.emulators.command import emulate as emulate_command
from portaflow_conformance.emulators.control import Control, Effect, Fault
from portaflow_conformance.emulators.deviations import rewritten
from portaflow_conformance.emulators.endpoint import RemoteControl
from portaflow_conformance.emulators.proxy import Proxy, route
from portaflow_conformance.emulators.running import Running

from portaflow.errors import PluginError, RunError

pytestmark = pytest.mark.usefixtures("own_tmp")

HERE = Path(__file__).parent
Left = Callable[[], list[str]]


def until(found: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Look again and again until `found` returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture
def clouds(own_tmp: None) -> Iterator[Clouds]:
    with emulate("echo_cloud:Echo") as clouds:
        yield clouds


def run(clouds: Clouds, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**clouds.environ(), **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def python(clouds: Clouds, script: str) -> subprocess.CompletedProcess[str]:
    return run(clouds, sys.executable, "-c", script)


# -- who reaches what

CLIENTS = {
    "requests": "import requests; print(requests.get('https://requests.echo.test/x').text)",
    "urllib": "from urllib.request import urlopen\n"
    "print(urlopen('https://urllib.echo.test/x').read().decode())",
    "aiohttp": """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get('https://aiohttp.echo.test/x') as answer:
            print(await answer.text())
asyncio.run(main())
""",
    "boto3": """
import boto3
body = boto3.client('s3').get_object(Bucket='bucket', Key='boto3')['Body']
print(body.read().decode())
""",
    "grpc": """
import grpc
with grpc.secure_channel('grpc.echo.test', grpc.ssl_channel_credentials()) as channel:
    print(channel.unary_unary('/grpc.Echo/Say')(b'').decode())
""",
    "grpc.aio": """
import asyncio, grpc
async def main():
    async with grpc.aio.secure_channel('grpc.echo.test', grpc.ssl_channel_credentials()) as c:
        print((await c.unary_unary('/grpc.aio.Echo/Say')(b'')).decode())
asyncio.run(main())
""",
    "obstore": """
from obstore.store import S3Store
store = S3Store('bucket', region='eu-west-3', virtual_hosted_style_request=True)
print(bytes(store.get('obstore').bytes()).decode())
""",
}
SAID = {
    "boto3": "https://bucket.s3.eu-west-3.amazonaws.com/boto3",
    "obstore": "https://bucket.s3.eu-west-3.amazonaws.com/obstore",
    "grpc": "/grpc.Echo/Say",
    "grpc.aio": "/grpc.aio.Echo/Say",
}


@pytest.mark.parametrize("name", CLIENTS)
def test_an_unmodified_client_reaches_a_stand_in(clouds: Clouds, name: str) -> None:
    done = python(clouds, CLIENTS[name])
    assert done.stdout.strip() == SAID.get(name, f"https://{name}.echo.test/x"), done.stderr


PROGRAMS = {
    "curl": ["curl", "-sS", "https://curl.echo.test/x"],
    "kubectl": [
        *("kubectl", "get", "--raw", "/x", "--token", "t"),
        *("--server", "https://kubectl.echo.test"),
    ],
    "aws": ["aws", "s3api", "get-object", "--bucket", "bucket", "--key", "aws", "/dev/stdout"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unmodified_program_reaches_a_stand_in(
    clouds: Clouds, name: str, tmp_path: Path
) -> None:
    if not shutil.which(name):
        pytest.skip(f"no {name} here")
    done = run(clouds, *PROGRAMS[name], KUBECACHEDIR=str(tmp_path))
    said = "https://bucket.s3.eu-west-3.amazonaws.com/aws" if name == "aws" else ""
    assert (said or f"https://{name}.echo.test/x") in done.stdout, done.stderr


def test_java_reaches_a_stand_in_and_nothing_else(clouds: Clouds, tmp_path: Path) -> None:
    java = shutil.which("java")
    if not java or "jdk.compiler" not in run(clouds, java, "--list-modules").stdout:
        pytest.skip("no Java that runs a source file")
    (tmp_path / "Get.java").write_text("""
        public class Get {
            public static void main(String[] urls) throws Exception {
                for (var url : urls) try (var stream = new java.net.URL(url).openStream()) {
                    System.out.println(new String(stream.readAllBytes()));
                } catch (java.io.IOException error) {
                    System.out.println(error.getMessage());
                }
            }
        }
    """)
    urls = ["https://java.echo.test/x", "https://example.com/", "https://stranger.echo.test/x"]
    done = run(clouds, java, "-XX:TieredStopAtLevel=1", str(tmp_path / "Get.java"), *urls)
    first, second, third, *_ = done.stdout.splitlines()
    assert first == urls[0], done.stderr
    assert "403 portaflow emulate refuses example.com" in second
    assert "unable to find valid certification path" in third


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com/", "refuses example.com: no stand-in has it"),
        ("https://echo.test.example.com/", "no stand-in has it"),
        ("https://93.184.215.14/", "refuses 93.184.215.14"),
        ("https://x.echo.test:8443/", "only https to port 443"),
    ],
)
def test_every_other_host_is_refused_by_its_name(clouds: Clouds, url: str, told: str) -> None:
    done = python(clouds, f"import requests; requests.get({url!r})")
    assert done.returncode == 1
    assert told in done.stderr
    (call,) = clouds.control.seen("proxy:Refused")
    assert call.params["host"] in url


@pytest.mark.parametrize("host", ["example.com", "x.echo.test", "169.254.169.254"])
def test_plain_http_is_refused_even_to_a_stand_in(clouds: Clouds, host: str) -> None:
    done = python(clouds, f"import requests as r; a = r.get('http://{host}/x'); print(a, a.text)")
    assert "403" in done.stdout
    assert f"{host}:80: only https" in done.stdout
    assert not clouds.control.count("echo:*")


def test_what_is_no_request_gets_an_answer(clouds: Clouds) -> None:
    port = int(clouds.env["https_proxy"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_loopback_is_no_business_of_the_proxy(clouds: Clouds) -> None:
    url = clouds.env["PORTAFLOW_EMULATE_URL"]
    done = python(clouds, f"import requests; print(requests.get({url!r} + '/count').text)")
    assert done.stdout.strip() == "0", done.stderr


def test_of_the_patterns_that_match_the_most_literal_wins() -> None:
    routes = {
        "*": 1,
        "*.amazonaws.com": 2,
        "s3.*.amazonaws.com": 3,
        "*.s3.*.amazonaws.com": 4,
        "s3-[a-z]*.amazonaws.com": 5,
        "s3.eu-west-1.amazonaws.com": 6,
    }
    hosts = {
        "example.com": 1,
        "sts.amazonaws.com": 2,
        "s3.eu-west-3.amazonaws.com": 3,
        "b.s3.eu-west-3.amazonaws.com": 4,
        "s3-fips.amazonaws.com": 5,
        "S3.eu-west-1.AmazonAWS.com.": 6,
    }
    assert {host: route(host, routes) for host in hosts} == hosts
    assert route("example.com", {"*.amazonaws.com": 1}) is None


def test_only_our_own_certificates_count(clouds: Clouds) -> None:
    script = (
        "import ssl; print(*(c['subject'] for c in ssl.create_default_context().get_ca_certs()))"
    )
    assert "portaflow stand-ins" in (trusted := python(clouds, script).stdout)
    assert trusted.count("organizationName") == 1
    folder = python(clouds, "import ssl; print(ssl.get_default_verify_paths().capath)").stdout
    assert list(Path(folder.strip()).iterdir()) == []
    stranger = "import requests; requests.get('https://stranger.echo.test/x')"
    assert "CERTIFICATE_VERIFY_FAILED" in python(clouds, stranger).stderr
    for program in ("curl", "kubectl"):
        if shutil.which(program):
            words = [word.replace(f"{program}.echo", "stranger.echo") for word in PROGRAMS[program]]
            assert "certificate" in run(clouds, *words).stderr


def test_nothing_of_a_real_cloud_is_in_the_environment(clouds: Clouds) -> None:
    real = {
        "AWS_PROFILE": "LIVE", "AWS_SESSION_TOKEN": "LIVE", "AWS_ENDPOINT_URL_S3": "https://LIVE",
        "AWS_ACCESS_KEY_ID": "LIVE", "GOOGLE_APPLICATION_CREDENTIALS": "/LIVE.json",
        "CLOUDSDK_CORE_PROJECT": "LIVE", "KUBECONFIG": "/LIVE", "all_proxy": "http://LIVE",
    }  # fmt: skip
    inside = clouds.environ({"HOME": "/home/me", "PATH": "/bin", **real})
    assert not [value for value in inside.values() if "LIVE" in value]
    assert (inside["HOME"], inside["PATH"]) == ("/home/me", "/bin")
    assert inside["AWS_ACCESS_KEY_ID"] == "echo"
    assert "AWS_PROFILE" not in inside
    assert not Path(inside["KUBECONFIG"]).exists()


def test_large_bodies_come_through_as_they_are(clouds: Clouds) -> None:
    done = python(
        clouds,
        "import os, requests\n"
        "data = os.urandom(30_000_000)\n"
        "print(requests.put('https://big.echo.test/x', data=data).content == data)",
    )
    assert done.stdout == "True\n", done.stderr


def test_many_tunnels_at_once_and_none_is_kept(clouds: Clouds) -> None:
    before = threading.active_count()
    done = python(
        clouds,
        "import requests\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def get(n): return requests.get(f'https://h{n}.echo.test/{n}').text\n"
        "with ThreadPoolExecutor(50) as pool: texts = list(pool.map(get, range(200)))\n"
        "print(texts == [f'https://h{n}.echo.test/{n}' for n in range(200)])",
    )
    assert done.stdout == "True\n", done.stderr
    until(lambda: threading.active_count() <= before + 1, "threads of the tunnels end")


# -- faults

GET = """
import requests
try:
    answer = requests.get('https://x.echo.test/x')
    print(answer.status_code, answer.text)
except requests.ConnectionError as error:
    print('broken:', error)
"""


@pytest.mark.parametrize("effect", ["reset-before", "reset-after"])
def test_a_reset_comes_through_the_tunnel(clouds: Clouds, effect: Any) -> None:
    clouds.control.order(Fault(effect=effect, operation="echo:http.*"))
    assert "broken: " in python(clouds, GET).stdout
    assert python(clouds, GET).stdout == "200 https://x.echo.test/x\n"
    assert [call.fault for call in clouds.control.seen("echo:http.*")] == [effect, ""]


def test_a_reset_comes_through_the_tunnel_as_one(clouds: Clouds) -> None:
    if not shutil.which("curl"):  # Python's TLS takes a reset for an end
        pytest.skip("no curl here")
    clouds.control.order(Fault(effect="reset-after", operation="echo:http.*"))
    assert "Connection reset by peer" in run(clouds, *PROGRAMS["curl"]).stderr


def test_a_server_that_cannot_reset_has_its_tunnel_broken(clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="reset-after", operation="echo:grpc.*"))
    script = CLIENTS["grpc"].replace("print", "import time; print")
    assert "StatusCode.UNAVAILABLE" in python(clouds, script).stderr
    assert python(clouds, script).stdout == "/grpc.Echo/Say\n"


def test_a_stand_in_that_is_gone_is_a_502(own_tmp: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()[1]
    proxy = Proxy(Control(), lambda: {"gone.test": gone})
    proxy.start()
    try:
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            connection.sendall(b"CONNECT gone.test:443 HTTP/1.1\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 502 the stand-in for gone.test")
    finally:
        proxy.stop()


def test_faults_strike_by_order_and_by_seed() -> None:
    def struck(seed: int, noise: int) -> list[bool]:
        control = Control(seed=seed)
        control.order(Fault(effect="error", operation="a:x", times=-1, probability=0.5))
        hits = []
        for _ in range(64):
            hits.append(control.called("a:x") is not None)
            for _ in range(noise):
                control.called("a:y")  # what does not match decides nothing
        return hits

    assert struck(1, 0) == struck(1, 3) != struck(2, 0)
    assert 10 < sum(struck(1, 0)) < 54
    control = Control()
    control.order(Fault(effect="throttle", operation="a:*", skip=1, times=2))
    control.order(Fault(effect="error", operation="a:x"))
    seen = [fault and fault.effect for fault in (control.called("a:x") for _ in range(5))]
    assert seen == ["error", "throttle", "throttle", None, None]


def test_hours_of_calls_do_not_fill_the_memory_and_all_are_counted(tmp_path: Path) -> None:
    control = Control()
    control.log_to(tmp_path / "calls.jsonl")
    for n in range(50_000):
        control.called("a:x" if n % 2 else "a:y", n=n)
    control.close()
    assert len(control.calls) <= 20_000
    assert control.seen("a:x")[-1].params == {"n": 49_999}
    assert (control.count("a:*"), control.count("a:y")) == (50_000, 25_000)
    assert (tmp_path / "calls.jsonl").read_bytes().count(b"\n") == 50_000


# -- the control endpoint


def test_faults_calls_and_clock_from_another_process(clouds: Clouds) -> None:
    script = """
import requests
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.endpoint import RemoteControl
control = RemoteControl()
assert control.order(Fault(effect='error', operation='echo:http.*', times=2, status=503)).hit == 0
print([requests.get(f'https://x.echo.test/{n}').status_code for n in range(3)])
print(control.count('echo:*'), [call.params['path'] for call in control.seen('echo:http.Get')])
print([(fault.effect, fault.times, fault.hit) for fault in control.ordered()])
control.clear()
print(control.ordered())
before = control.now()
control.jump(3600)
print(3600 <= control.now() - before < 3700)
"""
    done = python(clouds, script)
    assert done.stdout.splitlines() == [
        "[503, 503, 200]",
        "3 ['/0', '/1', '/2']",
        "[('error', 0, 2)]",
        "[]",
        "True",
    ], done.stderr
    assert clouds.control.now() > time.time() + 3500


@pytest.mark.parametrize(
    ("verb", "name", "body", "told"),
    [
        ("POST", "faults", {"effect": "explode"}, "effect of a fault is one of throttle"),
        ("POST", "faults", {"efect": "error"}, "a fault has no 'efect'"),
        ("POST", "faults", [], "a fault is a JSON object"),
        ("POST", "faults", {"effect": "error", "times": "2"}, "times of a fault is of type int"),
        ("POST", "clock", {"seconds": "soon"}, "a jump of the clock is"),
        ("GET", "nothing", None, "there is no GET /nothing"),
    ],
)
def test_a_wrong_order_is_answered_with_what_is_wrong(
    clouds: Clouds, verb: str, name: str, body: Any, told: str
) -> None:
    control = RemoteControl(clouds.env["PORTAFLOW_EMULATE_URL"])
    with pytest.raises(ValueError, match=re.escape(told)):
        control._ask(verb, name, body)
    assert control.ordered() == []


def test_nobody_orders_without_the_token(clouds: Clouds) -> None:
    url = clouds.env["PORTAFLOW_EMULATE_URL"].rpartition("/")[0]
    for path in ("faults", "wrong/faults", "/faults"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/{path}", timeout=10)
        assert refused.value.code == 403
        refused.value.close()


def test_outside_of_an_environment_the_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORTAFLOW_EMULATE_URL", raising=False)
    with pytest.raises(ValueError, match="inside `portaflow emulate`"):
        RemoteControl()


# -- from Python


def test_side_by_side_each_has_its_own(own_tmp: None, left: Left) -> None:
    with emulate("echo_cloud:Echo") as one, emulate("echo_cloud:Echo") as two:
        one.control.order(Fault(effect="error", operation="echo:*", status=503))
        assert python(two, GET).stdout.startswith("200 ")
        assert python(one, GET).stdout.startswith("503 ")
        assert (one.control.count("echo:*"), two.control.count("echo:*")) == (1, 1)
        one.stop()
        assert python(two, GET).stdout.startswith("200 ")
    assert left() == []


def test_one_that_does_not_start_ends_the_others(left: Left) -> None:
    with (
        pytest.raises(RunError, match="stand-in refuses did not start: OSError: the disk is full"),
        emulate("echo_cloud:Echo", "echo_cloud:Refuses"),
    ):
        pass
    assert left() == []
    assert not [t for t in threading.enumerate() if t.name in ("echo", "refuses", "proxy")]


def test_one_that_does_not_stop_is_told_when_the_others_have(left: Left) -> None:
    with (
        pytest.raises(RunError, match="sticks did not stop: OSError: it is stuck"),
        emulate("echo_cloud:Echo", "echo_cloud:Sticks"),
    ):
        pass
    assert left() == []


def test_two_that_claim_one_host_are_refused(left: Left) -> None:
    with (
        pytest.raises(PluginError, match="claims hosts"),
        emulate("echo_cloud:Echo", "echo_cloud:Twin"),
    ):
        pass
    assert left() == []


def test_a_command_that_is_leashed_runs_though_many_files_are_open(tmp_path: Path) -> None:
    files = [(tmp_path / "open").open("w") for _ in range(20)]
    try:
        out = tmp_path / "out"
        command = ["sh", "-c", "cat; ls /proc/self/fd; exit 5"]
        running = Running(command, tmp_path, env=os.environ, stdout=out, stderr=out)
        assert running.wait(20) == 5
        assert out.read_text().split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    finally:
        for file in files:
            file.close()


# -- the command


class Started:
    """A `portaflow emulate` in a process of its own."""

    def __init__(self, *words: str, path: Path = HERE, **more: Any) -> None:
        env = {**os.environ, "PYTHONPATH": str(path), **more.pop("environ", {})}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **more}
        command = [sys.executable, "-m", "portaflow", "emulate", *words]
        self.child = subprocess.Popen(
            command, env=env, text=True, stderr=subprocess.PIPE, **streams
        )

    def environment(self) -> dict[str, str]:
        """Wait until it is up, and read what it prints (--json)."""
        assert self.child.stdout
        text = ""
        for line in self.child.stdout:
            text += line
            if line == "}\n":
                break
        else:
            raise AssertionError(self.ended())
        return json.loads(text)["env"]  # type: ignore[no-any-return]

    def ended(self) -> tuple[int, str, str]:
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, out, err


@pytest.fixture
def start(left: Left) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def make(*words: str, **more: Any) -> Started:
        started.append(Started(*words, **more))
        return started[-1]

    yield make
    for one in started:
        one.child.kill()
        one.child.wait()
        for stream in (one.child.stdout, one.child.stderr):
            if stream:
                stream.close()  # what it has left may hold the other end


Start = Callable[..., Started]


def closed(env: dict[str, str]) -> bool:
    for url in (env["https_proxy"], env["PORTAFLOW_EMULATE_URL"]):
        port = int(re.findall(r":(\d+)", url)[0])
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(start: Start, left: Left, number: int) -> None:
    one = start("echo_cloud:Echo", "--json")
    env = one.environment()
    assert Path(env["ECHO_FOLDER"]).is_dir()
    until(lambda: any("sleep 1000" in thing for thing in left()), "its process runs")
    one.child.send_signal(number)
    code, _, err = one.ended()
    assert (code, left()) == (0, []), err
    assert closed(env)


def test_a_kill_leaves_nothing(start: Start, left: Left) -> None:
    one = start("echo_cloud:Echo", "--json")
    env = one.environment()
    one.child.kill()
    until(lambda: not left(), f"all is gone, of {left()}")
    assert closed(env)


def test_a_kill_during_a_command_leaves_nothing(start: Start, left: Left) -> None:
    command = ["sh", "-c", "sleep 1002 & echo up; wait"]
    one = start("echo_cloud:Echo", "--", *command)
    assert one.child.stdout
    assert one.child.stdout.readline() == "up\n"
    until(lambda: any("sleep 1002" in thing for thing in left()), "its process runs")
    one.child.kill()
    until(lambda: not left(), f"all is gone, of {left()}")


@pytest.mark.parametrize("words", [[], ["--", "sleep", "1003"]])
def test_the_end_of_who_began_it_is_its_own(tmp_path: Path, left: Left, words: list[str]) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo", *words]
    script = f"{shlex.join(command)} > {ready} 2>&1 & echo $! ; wait"
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE) as parent:
        mark = ": sleep 1003 " if words else ": sleep 1001 "
        until(lambda: any(thing.endswith(mark) for thing in left()), "it is up")
        until(lambda: words or ready.stat().st_size, "it has told its environment")
        parent.kill()
    until(lambda: not left(), f"all is gone, of {left()}")


def test_under_nohup_it_outlives_who_began_it(tmp_path: Path, left: Left) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo", "--json"]
    script = f"nohup {shlex.join(command)} > {ready} 2> /dev/null & echo $!"
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    begun = subprocess.run(["sh", "-c", script], env=env, capture_output=True, timeout=30)
    pid = int(begun.stdout)
    try:
        until(lambda: ready.stat().st_size, "it has told its environment")
        env = json.loads(ready.read_text())["env"]
        looked = RemoteControl(env["PORTAFLOW_EMULATE_URL"])
        for _ in range(3):  # longer than it takes to see that a parent is gone
            time.sleep(0.2)
            assert looked.count("*") == 0
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not left(), f"all is gone, of {left()}")


def test_who_asks_twice_does_not_wait(start: Start, left: Left, tmp_path: Path) -> None:
    slow = tmp_path / "slow_cloud.py"
    slow.write_text(
        "import time\nfrom echo_cloud import Sticks\n"
        "class Slow(Sticks):\n    def stop(self): time.sleep(1000)\n"
    )
    one = start("slow_cloud:Slow", "--json", environ={"PYTHONPATH": f"{HERE}:{tmp_path}"})
    one.environment()
    one.child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        one.child.wait(1)
    one.child.send_signal(signal.SIGTERM)
    assert one.ended()[0] == 128 + signal.SIGTERM
    until(lambda: not left(), f"all is gone, of {left()}")


def test_a_command_runs_inside_and_its_exit_code_is_ours(start: Start, left: Left) -> None:
    script = f"import sys\n{GET}\nsys.exit(7)"
    code, out, err = start("echo_cloud:Echo", "--", sys.executable, "-c", script).ended()
    assert (code, out, err) == (7, "200 https://x.echo.test/x\n", "")
    assert left() == []


def test_a_command_ends_by_signals_as_a_shell_would_tell(start: Start) -> None:
    assert start("echo_cloud:Echo", "--", "sh", "-c", "kill -TERM $$").ended()[0] == 143
    assert start("echo_cloud:Echo", "--", "no-such-command").ended()[0] == 127
    assert start("echo_cloud:Echo", "--", str(HERE)).ended()[0] == 126


def test_a_command_that_leaves_a_process_does_not(start: Start, left: Left) -> None:
    one = start("echo_cloud:Echo", "--", "sh", "-c", "sleep 1004 >/dev/null 2>&1 & exit 0")
    assert one.ended()[0] == 0
    assert left() == []


def test_a_command_is_told_the_signals(start: Start, left: Left) -> None:
    script = (
        "trap 'echo term; exit 9' TERM; trap 'echo int' INT; echo up; while :; do sleep 0.1; done"
    )
    one = start("echo_cloud:Echo", "--", "sh", "-c", script)
    assert one.child.stdout
    for number, told in ((None, "up\n"), (signal.SIGINT, "int\n"), (signal.SIGTERM, "term\n")):
        if number:
            one.child.send_signal(number)
        assert one.child.stdout.readline() == told
    assert one.ended()[0] == 9
    assert left() == []


def test_at_a_terminal_ctrl_c_is_the_commands(left: Left) -> None:
    reader, writer = pty.openpty()
    script = "trap 'echo INT; exit 3' INT; echo up; while :; do sleep 0.1; done"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo"]
    env = {**os.environ, "PYTHONPATH": str(HERE)}

    def login() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # makes it the controlling terminal

    one = subprocess.Popen(
        [*command, "--", "sh", "-c", script],
        env=env, stdin=writer, stdout=writer, stderr=writer, preexec_fn=login,
    )  # fmt: skip
    os.close(writer)
    seen = b""
    while b"up\r\n" not in seen:
        seen += os.read(reader, 1000)
    os.write(reader, b"\x03")
    assert one.wait(20) == 3
    os.close(reader)
    assert left() == []


def test_the_environment_can_be_sourced(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "clouds.sh").open("w") as file:
        one = start("echo_cloud:Echo", stdout=file, environ={"AWS_PROFILE": "it's real"})
        until(lambda: (tmp_path / "clouds.sh").stat().st_size, "it has told its environment")
    script = (
        f". ./clouds.sh; echo ${{AWS_PROFILE-unset}}; exec {shlex.quote(sys.executable)} -c "
        + (shlex.quote(GET))
    )
    env = {**os.environ, "AWS_PROFILE": "it's real"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "unset\n200 https://x.echo.test/x\n", done.stderr
    one.child.send_signal(signal.SIGINT)
    assert re.search(r"up in [\d.]+ s; Ctrl-C ends it", one.ended()[2])


def test_calls_are_kept_in_a_file_and_refused_hosts_are_told(start: Start, tmp_path: Path) -> None:
    script = f"{GET}\nrequests.get('http://elsewhere.example.com/x')\nrequests.get('http://elsewhere.example.com/x')"
    log = tmp_path / "calls.jsonl"
    one = start("echo_cloud:Echo", "--log", str(log), "--", sys.executable, "-c", script)
    assert one.ended()[2] == "refused, for no stand-in has it: elsewhere.example.com (2)\n"
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert [c["operation"] for c in calls] == ["echo:http.Get", *["proxy:Refused"] * 2]
    assert calls[0]["params"] == {"path": "/x"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["awz"], "error: there is no stand-in 'awz'; did you mean 'aws'?"),
        ([], "Missing argument"),
        (["no_such_module:Echo"], "cannot be imported: No module named 'no_such_module'"),
        (["echo_cloud:Nothing"], "has no attribute 'Nothing'"),
        (["json:JSONDecoder"], "json:JSONDecoder is no Emulator"),
        (["echo_cloud:Echo", "--"], "no command after --"),
        (["echo_cloud:Echo", "--log", "/no/such/folder/log"], "No such file or directory"),
        (["echo_cloud:Echo", "--pace", "-1"], "is not in the range"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    start: Start, left: Left, words: list[str], told: str
) -> None:
    code, out, err = start(*words).ended()
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert left() == []


def test_without_the_extra_the_way_to_it_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError('no', name='trustme')")
    for name in ("aws", "gcp", "kubernetes"):
        code, _, err = start(name, path=tmp_path).ended()
        assert code == 2
        assert "pip install 'portaflow-conformance[emulators]'" in err


# -- the page

PAGE = HERE.parents[2] / "docs" / "local-clouds.md"


def test_the_page_tells_the_deviations_that_are_known() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "python -m portaflow_conformance.emulators.deviations PAGE"


def test_the_page_tells_every_option_effect_and_variable(clouds: Clouds) -> None:
    page = PAGE.read_text("utf-8")
    options = [o for p in emulate_command.params for o in p.opts if o.startswith("--")]
    variables = [name for name in clouds.env if name not in clouds.emulators["echo"].env()]
    words = [*options, *get_args(Effect), *variables]
    assert [word for word in words if f"`{word}" not in page and f"{word}`" not in page] == []


# -- all of them


def test_all_clouds_start_fast_are_small_and_leave_nothing(start: Start, left: Left) -> None:
    began = time.monotonic()
    one = start(*EMULATORS, "--json")
    env = one.environment()
    took = time.monotonic() - began
    pids = [one.child.pid, *(int(thing.partition(":")[0]) for thing in left() if ":" in thing)]
    memory = sum(psutil.Process(pid).memory_full_info().pss for pid in set(pids)) / 2**20
    one.child.send_signal(signal.SIGTERM)
    assert (one.ended()[0], left()) == (0, [])
    assert closed(env)
    assert memory < 400
    assert took < 3 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
