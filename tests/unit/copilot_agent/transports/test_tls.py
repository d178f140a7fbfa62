"""Certificates are checked against the manager's real name, however the connection is made."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from copilot_agent.core.events import TransportTrouble
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.carriers import over_http
from copilot_agent.transports.connections import open_session
from tests.unit.copilot_agent.transports.scripted import ScriptedManager
from tests.unit.copilot_agent.transports.test_http import SocketDialer, attach

NAME = "manager.test"
DAY = datetime.timedelta(days=1)


class Authority:
    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (
            self._builder(self.name, self.key.public_key())
            .add_extension(constraints, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def server_context(self, root: Path) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (root / "chain.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (root / "key.pem").write_bytes(secret)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(root / "chain.pem", root / "key.pem")
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer_name=self.name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - DAY,
            not_valid_after=now + DAY,
        )


async def connect(root: Path, authority: Authority, name: str, extra_ca: str) -> None:
    async with ScriptedManager().running(authority.server_context(root)) as manager:
        dialer = SocketDialer(int(manager.url.rpartition(":")[2]))
        async with open_session(dialer, extra_ca) as session:
            transport = over_http(session, f"https://{name}")
            await attach(transport, manager)
            await transport.close()


async def test_an_extra_authority_is_trusted(tmp_path: Path) -> None:
    authority = Authority()
    await connect(tmp_path, authority, NAME, authority.pem)


async def test_an_unknown_authority_is_not(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="certificate verify failed") as caught:
        await connect(tmp_path, Authority(), NAME, Authority().pem)
    assert caught.value.trouble is TransportTrouble.UNREACHABLE


async def test_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    with pytest.raises(TransportError, match="not valid for"):
        await connect(tmp_path, authority, "elsewhere.test", authority.pem)
