"""Who reaches a stand-in and who does not, and how faults come through the tunnels."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Control, Fault
from portaflow_conformance.emulators.proxy import Proxy, route

from .frame import GET, python, run, until

pytestmark = pytest.mark.usefixtures("own_tmp")

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
