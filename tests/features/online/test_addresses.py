"""From URLs and settings to connections: what they say, and TLS over a real socket."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from features.online import StoreLink, StoreSecurity, parse_address
from features.online.address import ClusterAddress, SentinelAddress, StoreAddress
from features.testing import EAGER, FakeRedis
from weir.errors import ConfigError
from weir.store_url import StoreUrl, parse_store_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", StoreUrl("single", (("127.0.0.1", 6379),))),
        ("valkey://h:1/2", StoreUrl("single", (("h", 1),), db=2)),
        ("redis://h?db=3", StoreUrl("single", (("h", 6379),), db=3)),
        ("redis://[::1]:7", StoreUrl("single", (("::1", 7),))),
        (
            "rediss://me:p%40%3Aw@h",
            StoreUrl("single", (("h", 6379),), tls=True, username="me", password="p@:w"),
        ),
        ("valkeys://:w@h", StoreUrl("single", (("h", 6379),), tls=True, password="w")),
        ("unix:///run/r.sock?db=1", StoreUrl("single", (), "/run/r.sock", db=1)),
        ("redis+cluster://a:1,b", StoreUrl("cluster", (("a", 1), ("b", 6379)))),
        (
            "valkeys+sentinel://:w@a,b:2/shop/4",
            StoreUrl(
                "sentinel", (("a", 26379), ("b", 2)), db=4, master="shop", tls=True, password="w"
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, expected: StoreUrl) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "expected redis://"),
        ("host:6379", "expected redis://"),
        ("http://h", "expected redis://"),
        ("redis+ring://h", "expected redis://"),
        ("redis://h/0/1", "expected redis://"),
        ("redis://h/x", "a database is a number, not 'x'"),
        ("redis://h:70000", "a port is a number from 1 to 65535, not '70000'"),
        ("redis://h?timeout=1", "unknown option 'timeout'; known: db, ssl_ca_certs"),
        ("redis://a,b", "several hosts"),
        ("redis+cluster://a/1", "no database other than 0"),
        ("redis+sentinel://a", "the master's name is missing"),
    ],
)
def test_what_no_url_is(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_store_url(url)


def test_a_password_is_not_quoted_in_a_complaint() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address("redis://me:secret@h:x")
    assert "secret" not in str(caught.value)


def test_settings_win_over_the_url() -> None:
    security = StoreSecurity("you", "other")
    assert parse_address("redis://me:w@h:1/2", security) == StoreAddress(
        "h", 1, None, 2, "you", "other"
    )
    cluster = parse_address("redis+cluster://me:w@h:1", security)
    assert isinstance(cluster, ClusterAddress)
    assert cluster.node("n", 3).greeting() == [(b"AUTH", b"you", b"other")]
    sentinel = parse_address("redis+sentinel://:w@h/m/5")
    assert isinstance(sentinel, SentinelAddress)
    assert sentinel.at("n", 3).greeting() == [(b"AUTH", b"w"), (b"SELECT", b"5")]
    assert sentinel.asked()[0].greeting() == []


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


async def state_of(url: str, security: StoreSecurity) -> str:
    address = parse_address(url, security)
    assert isinstance(address, StoreAddress)
    told = asyncio.Event()
    link = StoreLink(address, EAGER, on_change=lambda state: told.set())
    link.start()
    await told.wait()
    state = link.state
    await link.close()
    return state


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    server_cert, server_key = certificate(tmp_path, "server")
    client_cert, client_key = certificate(tmp_path, "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_cert, server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client_cert)
    redis = FakeRedis()
    await redis.start(context)
    url = f"rediss://127.0.0.1:{redis.port}/0"
    ca, cert, key = str(server_cert), str(client_cert), str(client_key)
    own = StoreSecurity("me", "w", ca, cert, key)
    assert await state_of(url, own) == "up"
    assert redis.commands[:2] == [b"AUTH", b"PING"]
    assert await state_of(url, StoreSecurity(cert_file=cert, key_file=key)) == "down"
    assert await state_of(url, StoreSecurity(cert_file=cert, key_file=key, verify=False)) == "up"
    assert await state_of(url, StoreSecurity(ca_file=ca)) == "down"
    await redis.stop()


def test_certificates_that_are_missing_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.redis_tls"):
        parse_address("rediss://h", StoreSecurity(ca_file=str(tmp_path / "none.pem")))
