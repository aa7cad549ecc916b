"""A certificate authority that lives as long as the stand-ins do."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

TRUSTSTORE_PASSWORD = "changeit"  # Java's own default: the file holds no secret


class Authority:
    """Signs certificates for any host; clients trust `bundle` alone, Java's `truststore`."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA(organization_name="portaflow stand-ins")
        self._folder = folder
        self.bundle = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.bundle)
        self.truststore = folder / "ca.p12"
        ours = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        encryption = BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode())
        trusted = [pkcs12.PKCS12Certificate(ours, b"portaflow")]
        self.truststore.write_bytes(pkcs12.serialize_java_truststore(trusted, encryption))

    def issue(self, *hosts: str) -> Path:
        """Write key and certificate chain for `hosts` (wildcards too) into one new PEM file.

        Stand-ins start at the same time, and two may ask for one host.
        """
        pem = self._ca.issue_cert(*hosts).private_key_and_cert_chain_pem.bytes()
        with NamedTemporaryFile(dir=self._folder, suffix=".pem", delete=False) as file:
            file.write(pem)
        return Path(file.name)
