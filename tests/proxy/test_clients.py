"""Ordinary HTTP clients, pointed here by what they are pointed with: nothing of ours in their process."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import Any

import pytest

RULES = """
version: 1
tools:
  pay: POST {origin}/pay
  look: GET {origin}/**
rules:
  - {id: look, tool: look, allow: true}
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
"""

REQUESTS = """
import requests, sys
with requests.Session() as session:
    print(session.get(sys.argv[1] + "/a").status_code)
    for _ in range(3):
        got = session.post(sys.argv[1] + "/pay", json={"amount": 5}); print(got.status_code, got.text)
    got = session.delete(sys.argv[1] + "/a"); print(got.status_code, got.reason)
"""

HTTPX = """
import httpx, sys
with httpx.Client(HTTP2) as client:
    print(client.get(sys.argv[1] + "/a").status_code)
    for _ in range(3):
        got = client.post(sys.argv[1] + "/pay", json={"amount": 5}); print(got.status_code, got.text)
    got = client.delete(sys.argv[1] + "/a"); print(got.status_code, got.json()["code"])
"""

AIOHTTP = """
import aiohttp, asyncio, ssl, sys
async def main():
    trust = ssl.create_default_context()
    async with aiohttp.ClientSession(trust_env=True, connector=aiohttp.TCPConnector(ssl=trust)) as session:
        async with session.get(sys.argv[1] + "/a") as got: print(got.status)
        for _ in range(3):
            async with session.post(sys.argv[1] + "/pay", json={"amount": 5}) as got:
                print(got.status, await got.text())
        async with session.delete(sys.argv[1] + "/a") as got: print(got.status, got.reason)
asyncio.run(main())
"""

URLLIB3 = """
import os, ssl, sys, urllib3
with urllib3.ProxyManager(os.environ["HTTPS_PROXY"], ca_certs=os.environ["SSL_CERT_FILE"]) as manager:
    print(manager.request("GET", sys.argv[1] + "/a").status)
    for _ in range(3):
        got = manager.request("POST", sys.argv[1] + "/pay", json={"amount": 5}); print(got.status, got.data.decode())
    got = manager.request("DELETE", sys.argv[1] + "/a"); print(got.status, got.reason)
"""

URLLIB = """
import json, sys, urllib.error, urllib.request as web
print(web.urlopen(sys.argv[1] + "/a").status)
for _ in range(3):
    call = web.Request(sys.argv[1] + "/pay", b'{"amount": 5}', {"Content-Type": "application/json"})
    got = web.urlopen(call); print(got.status, got.read().decode())
try:
    web.urlopen(web.Request(sys.argv[1] + "/a", method="DELETE"))
except urllib.error.HTTPError as error:
    print(error.code, error.reason); error.close()
"""

EXPECTED = ["200", '200 {"n":2}', '200 {"n":2}', '200 {"n":2}']


async def run(here: Any, *command: str) -> list[str]:
    ca = str(here.proxy.ca_path)
    environment = {
        "PATH": os.environ["PATH"],
        "HTTPS_PROXY": here.proxy_url,
        "https_proxy": here.proxy_url,
        "SSL_CERT_FILE": ca,
        "REQUESTS_CA_BUNDLE": ca,
        "CURL_CA_BUNDLE": ca,
    }
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return [line for line in out.decode().splitlines() if line]


@pytest.mark.parametrize(
    ("program", "last"),
    [
        pytest.param(REQUESTS, "403 No rule allows this", id="requests"),
        pytest.param(HTTPX.replace("HTTP2", ""), "403 no-allow", id="httpx"),
        pytest.param(HTTPX.replace("HTTP2", "http2=True"), "403 no-allow", id="httpx-http2"),
        pytest.param(AIOHTTP, "403 No rule allows this", id="aiohttp"),
        pytest.param(URLLIB3, "403 No rule allows this", id="urllib3"),
        pytest.param(URLLIB, "403 No rule allows this", id="urllib"),
    ],
)
async def test_a_python_client_gets_one_effect_and_readable_refusals(world: Any, program: str, last: str) -> None:
    here = await world(RULES)
    lines = await run(here, sys.executable, "-W", "error", "-c", program, here.origin)
    assert lines == [*EXPECTED, last]
    assert [hit.method for hit in here.upstream.hits] == ["GET", "POST"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_gets_one_effect_and_readable_refusals(world: Any, version: str) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    here = await world(RULES)
    lines: list[str] = []
    for options in (["/a"], *([["/pay", "--json", '{"amount": 5}']] * 3), ["/a", "-X", "DELETE"]):
        lines += await run(
            here, curl, "-sS", version, "-w", "\n%{http_code} %{http_version}\n", here.origin + options[0], *options[1:]
        )
    number = "2" if version == "--http2" else "1.1"
    assert lines[:-2] == ['{"n":1}', f"200 {number}", *(['{"n":2}', f"200 {number}"] * 3)]
    assert '"no-allow"' in lines[-2] and lines[-1] == f"403 {number}"
    assert [hit.method for hit in here.upstream.hits] == ["GET", "POST"]
