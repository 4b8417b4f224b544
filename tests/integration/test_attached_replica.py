"""A replica that somebody else runs, behind TLS and a key of its own."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from orchqueue.testing import LiveDaemon, ScriptedDaemon, ScriptedEngine, daemon, engine
from wire import shown, streamed, text, the_end

KEY = "a-key-of-the-replica"
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that nobody else knows, and an engine's context signed by it."""

    ca_file: Path
    tls: ssl.SSLContext


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signed_by: tuple[str, ec.EllipticCurvePrivateKey] | None
) -> x509.Certificate:
    """One for 127.0.0.1, or an authority that signs itself."""
    issuer, signer = signed_by or (name, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), critical=True)
    )
    if signed_by is not None:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def authority(folder: Path, name: str) -> Authority:
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_file, chain = folder / f"{name}-ca.pem", folder / f"{name}.pem"
    ca_file.write_bytes(certificate(name, root, None).public_bytes(serialization.Encoding.PEM))
    private = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own = certificate("engine", leaf, (name, root)).public_bytes(serialization.Encoding.PEM)
    chain.write_bytes(private + own)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    return Authority(ca_file, tls)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("trusted"), "trusted")


def attach(running: ScriptedDaemon, to: ScriptedEngine, key: str | None, ca_file: Path | None) -> None:
    """Puts another engine at the place of the daemon's own."""
    running.apply(
        "replica_set",
        pool="test",
        replica="test-0",
        url=to.url,
        api_key=key,
        ca_file=None if ca_file is None else str(ca_file),
        slots=1,
        reproducible=True,
        engine_version="scripted",
        model_digest="0" * 64,
        identity={"engine": "llamacpp"},
    )
    running.apply("replica_ready", replica="test-0")


def test_replica_behind_tls_and_key_is_probed_and_serves(trusted: Authority) -> None:
    with engine(["Hello over TLS."], api_key=KEY, tls=trusted.tls) as secured:
        replica = {
            "url": secured.url,
            "slots": 1,
            "api_key": "${REPLICA_KEY}",
            "ca_file": str(trusted.ca_file),
        }
        pool = {"id": "far", "engine": "llamacpp", "model": "scripted", "ctx": 512, "replicas": [replica]}
        with LiveDaemon({"pools": [pool]}, env={"REPLICA_KEY": KEY}) as live:
            stream = streamed(live.url)
            assert the_end(stream).name == "end"
            assert text(stream) == "Hello over TLS."
            log = live.log_path.read_text()
        assert KEY not in log


@pytest.mark.parametrize("key", [None, "another-key"])
def test_wrong_key_is_the_pool_s_fault_and_is_told_as_such(trusted: Authority, key: str | None) -> None:
    with engine(api_key=KEY, tls=trusted.tls) as secured, daemon() as running:
        attach(running, secured, key, trusted.ca_file)
        stream = streamed(running.url)
        told = the_end(stream).data
        assert (told["code"], told["reason"]) == ("POOL_UNAVAILABLE", "replica_key_refused")
        assert not told["retriable"]
        assert "`replicas[].api_key`" in told["hint"]
        assert len(shown(running.url, stream[0].data["task_id"])["attempts"]) == 1
        assert secured.requests == []


def test_right_key_is_sent_with_every_request(trusted: Authority) -> None:
    with engine(["one"], api_key=KEY, tls=trusted.tls) as secured, daemon() as running:
        attach(running, secured, KEY, trusted.ca_file)
        assert [the_end(streamed(running.url)).name for _ in range(3)] == ["end"] * 3


def test_certificate_of_an_unknown_authority_is_not_believed(trusted: Authority, tmp_path: Path) -> None:
    other = authority(tmp_path, "other")
    with engine(["one"], tls=trusted.tls) as secured, daemon() as running:
        for ca_file in (other.ca_file, None):
            attach(running, secured, None, ca_file)
            told = the_end(streamed(running.url)).data
            assert told["code"] == "REPLICA_EXHAUSTED"
        assert secured.requests == []
