"""Certificates for upstreams that demand one: shown to their host alone, and tried before anything starts."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.clientcert import ClientCertError, check
from tests.proxy.conftest import Hit, MakeWorld, answer

RULES = "version: 1\nrules: [{id: all, match: '{origin}/**', allow: true}]"


@pytest.fixture(scope="module")
def issuer() -> trustme.CA:
    """Who the upstream believes."""
    return trustme.CA()


@pytest.fixture
def directory(tmp_path: Path, issuer: trustme.CA) -> Path:
    made = tmp_path / "certs"
    made.mkdir()
    issuer.issue_cert("agent@example.com").private_key_and_cert_chain_pem.write_to_path(str(made / "localhost.pem"))
    return made


@pytest.fixture
def shown(upstream: Any, issuer: trustme.CA) -> list[Any]:
    """Have the upstream demand a certificate; which names it has seen in them, call by call."""
    upstream.tls.verify_mode = ssl.CERT_REQUIRED
    issuer.configure_trust(upstream.tls)
    seen: list[Any] = []

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        seen.append(writer.get_extra_info("peercert")["subjectAltName"])
        return answer(200)

    upstream.respond = respond
    return seen


async def test_an_upstream_that_demands_a_certificate_gets_it(
    world: MakeWorld, upstream: Any, directory: Path, shown: list[Any]
) -> None:
    here = await world(RULES, client_certs=directory)
    async with here.client() as client:
        assert (await client.get("/a")).status_code == 200
    assert shown == [(("email", "agent@example.com"),)]


async def test_no_other_host_gets_it(world: MakeWorld, upstream: Any, directory: Path, shown: list[Any]) -> None:
    here = await world(RULES.replace("{origin}", f"https://127.0.0.1:{upstream.port}"), client_certs=directory)
    async with here.client() as client:
        got = await client.get(f"https://127.0.0.1:{upstream.port}/a")
    assert got.status_code == 502
    assert (shown, upstream.hits) == ([], [])


async def test_without_one_it_is_refused(world: MakeWorld, upstream: Any, shown: list[Any]) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert (await client.get("/a")).status_code == 502
    assert shown == []


async def test_one_that_is_renewed_is_shown_from_the_next_connection_on(
    world: MakeWorld, upstream: Any, directory: Path, shown: list[Any], issuer: trustme.CA
) -> None:
    here = await world(RULES, client_certs=directory)
    file, bad = directory / "localhost.pem", "half of a file"
    first = file.read_text()
    other = issuer.issue_cert("renewed@example.com").private_key_and_cert_chain_pem.bytes().decode()
    for text in (first, other, bad, first):
        file.write_text(text)
        os.utime(file, ns=(0, len(shown)))  # whatever the clock of the file system tells apart
        async with here.client() as client:
            assert (await client.get("/a")).status_code == 200
    names = [name for ((_, name),) in shown]
    assert names == ["agent@example.com", "renewed@example.com", "renewed@example.com", "agent@example.com"]


async def test_one_that_is_added_is_shown(
    world: MakeWorld, upstream: Any, directory: Path, shown: list[Any], tmp_path: Path
) -> None:
    (directory / "localhost.pem").rename(tmp_path / "kept")
    (directory / "other.example.com.pem").write_bytes((tmp_path / "kept").read_bytes())
    here = await world(RULES, client_certs=directory)
    for status in (502, 200):
        async with here.client() as client:
            assert (await client.get("/a")).status_code == status
        if status == 502:
            (tmp_path / "kept").rename(directory / "localhost.pem")
    assert len(shown) == 1


def test_the_hosts_are_told(directory: Path) -> None:
    (directory / "README").write_text("not looked at")
    (directory / "::1.pem").write_bytes((directory / "localhost.pem").read_bytes())
    assert check(directory) == ("::1", "localhost")


def test_what_cannot_be_used_is_said_at_the_start(directory: Path, issuer: trustme.CA, tmp_path: Path) -> None:
    whole = (directory / "localhost.pem").read_text()
    begins = whole.index("-----BEGIN CERTIFICATE-----")
    other = issuer.issue_cert("b@example.com").private_key_pem.bytes().decode()
    cases = [
        ("Api.example.com.pem", whole, "is not called after a host"),
        ("*.example.com.pem", whole, "is not called after a host"),
        ("a.pem", whole[begins:], "it has to hold a certificate and its key"),
        ("a.pem", whole[:begins], "it has to hold a certificate and its key"),
        ("a.pem", other + whole[begins:], "key values mismatch"),
        ("a.pem", "", "it has to hold a certificate and its key"),
    ]
    for name, text, told in cases:
        file = directory / name
        file.write_text(text)
        with pytest.raises(ClientCertError, match=told):
            check(directory)
        file.unlink()
    with pytest.raises(ClientCertError, match="cannot read"):
        check(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClientCertError, match="holds no `HOST"):
        check(tmp_path / "empty")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(directory: Path) -> None:
    file = directory / "localhost.pem"
    raw = file.read_bytes()
    key = serialization.load_pem_private_key(raw, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    file.write_bytes(locked + raw[raw.index(b"-----BEGIN CERTIFICATE-----") :])
    with pytest.raises(ClientCertError, match="without a password"):
        check(directory)
