"""The host that the proxy answers itself, through a real proxy."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest
from cryptography import x509

from proxy.ownhost import NAME, PROBES

RULES = "{version: 1, rules: []}"
PROBE = "a" + PROBES


def recorded(here: Any) -> dict[str, int]:
    counts: dict[str, int] = here.proxy.counts
    return counts


async def test_the_certificate_is_given_to_who_asks(world: Any) -> None:
    here = await world(RULES)
    ours = x509.load_pem_x509_certificate(here.proxy.ca_path.read_bytes())
    async with httpx.AsyncClient(proxy=here.proxy_url, base_url=f"http://{NAME}") as client:
        assert x509.load_pem_x509_certificate((await client.get("/ca.pem")).content) == ours
        assert x509.load_der_x509_certificate((await client.get("/ca.crt")).content) == ours
        page = await client.get("/")
        digest = ours.fingerprint(ours.signature_hash_algorithm or pytest.fail()).hex(":").upper()
        assert digest in page.text.replace("<wbr>", "")
        assert "$" not in page.text.replace('"$(', "").replace("$PWD", ""), "every place in it is filled"
        assert page.headers["content-security-policy"].startswith("default-src 'none'") and "<script" not in page.text
        head = await client.head("/")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(page.content)))
        assert (await client.get("/other")).status_code == 404
        assert (await client.post("/", content=b"x" * 100_000)).status_code == 405
    assert recorded(here) == {} and here.upstream.connections == 0


async def test_a_probe_is_answered_and_seen_and_no_call_of_anybody(world: Any) -> None:
    here = await world(RULES)
    trust = ssl.create_default_context(cafile=str(here.proxy.ca_path))
    for http2 in (False, True):
        async with httpx.AsyncClient(proxy=here.proxy_url, verify=trust, http2=http2) as client:
            answer = await client.post(f"https://{PROBE}/any", json={"a": 1})
            assert (answer.status_code, answer.json()) == (200, {"probe": PROBE})
    assert here.proxy.probes == {PROBE: "through"}
    assert recorded(here) == {} and here.upstream.connections == 0


async def test_a_probe_that_refuses_tls_is_told_from_one_that_came(world: Any) -> None:
    here = await world(RULES)
    async with httpx.AsyncClient(proxy=here.proxy_url, verify=ssl.create_default_context()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(f"https://{PROBE}/")
    assert here.proxy.probes[PROBE] in ("connected", "refused")


@pytest.mark.parametrize("host", [f"x.{NAME}", f"{NAME}.example", "probe.borderpost.invalid"])
async def test_no_other_host_is_answered(world: Any, host: str) -> None:
    here = await world(RULES)
    async with httpx.AsyncClient(proxy=here.proxy_url) as client:
        assert (await client.get(f"http://{host}/")).json()["code"] == "no-allow"
    assert recorded(here) == {"deny": 1}


async def test_who_has_no_token_gets_nothing(world: Any) -> None:
    here = await world(RULES, command="run", run="r_1", token="bp_secret")
    async with httpx.AsyncClient(proxy=here.proxy_url) as client:
        assert (await client.get(f"http://{NAME}/ca.pem")).status_code == 407
