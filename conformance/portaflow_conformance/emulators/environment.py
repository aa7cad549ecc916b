"""The environment by which unmodified clients reach the stand-ins, and nothing else.

What leads to a real cloud is taken out; what is put in names our proxy and our authority, in
the words of every client that reads such words. Trust is narrowed, not widened: the only
certificates that count are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .authority import TRUSTSTORE_PASSWORD, Authority

_LOOPBACK = "127.0.0.1,localhost,::1"
_REAL = re.compile(
    r"(AWS|AMAZON|GOOGLE|GCLOUD|GCE|GCP|CLOUDSDK|KUBE|KUBERNETES)_\w+|KUBECONFIG"
    r"|BOTO_CONFIG|STORAGE_EMULATOR_HOST|\w+_proxy",
    re.IGNORECASE,
)


def inside(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without credentials, endpoints and proxies of the world outside."""
    return {name: value for name, value in environ.items() if not _REAL.fullmatch(name)}


def outside(environ: Mapping[str, str]) -> list[str]:
    """The names that `inside` leaves out."""
    return sorted(name for name in environ if _REAL.fullmatch(name))


def routing(folder: Path, authority: Authority, port: int) -> dict[str, str]:
    """The variables for the proxy at `port` and the authority; files go to `folder`."""
    proxy = f"http://127.0.0.1:{port}"
    bundle = str(authority.bundle)
    nothing = folder / "nothing"  # OpenSSL and Go would add the system's own certificates
    nothing.mkdir()
    return {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy),
        "grpc_proxy": proxy,
        **dict.fromkeys(("NO_PROXY", "no_proxy", "no_grpc_proxy"), _LOOPBACK),
        "SSL_CERT_FILE": bundle,  # OpenSSL, so Python and Ruby; Go; Rust
        "SSL_CERT_DIR": str(nothing),
        "AWS_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "HTTPLIB2_CA_CERTS": bundle,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
        "NODE_EXTRA_CA_CERTS": bundle,
        "NODE_USE_ENV_PROXY": "1",
        "JAVA_TOOL_OPTIONS": _java(authority.truststore, port),
        # Of a cloud that is not emulated there is no configuration at all: an empty place.
        "AWS_CONFIG_FILE": str(nothing / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(nothing / "aws-credentials"),
        "CLOUDSDK_CONFIG": str(nothing / "gcloud"),
        "KUBECONFIG": str(nothing / "kubeconfig"),
    }


def _java(truststore: Path, port: int) -> str:
    options = {
        "http.proxyHost": "127.0.0.1",
        "http.proxyPort": port,
        "https.proxyHost": "127.0.0.1",
        "https.proxyPort": port,
        "http.nonProxyHosts": "127.*|localhost",  # for both schemes; AWS's SDK has no default
        "javax.net.ssl.trustStore": truststore,
        "javax.net.ssl.trustStoreType": "PKCS12",
        "javax.net.ssl.trustStorePassword": TRUSTSTORE_PASSWORD,
    }
    return " ".join(f"-D{name}={value}" for name, value in options.items())
