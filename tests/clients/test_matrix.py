"""Client by client, method by method, body by body: the ledger says what the upstream counted, entry by entry."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import HERE, Run, shown
from tests.clients.upstream import WHEEL, Upstream

PYTHON = (
    "requests", "httpx", "httpx-http2", "aiohttp", "urllib3", "urllib", "httplib2", "stripe", "openai", "anthropic",
    "slack_sdk",
)  # fmt: skip
NODE = ("fetch", "https", "https.Agent", "axios", "undici", "node-fetch", "stripe", "openai")


def agree(run: Run, upstream: Upstream, said: str = "") -> None:
    """The ledger, the upstream's count and, where it tells, the client: all say the same calls in the same order."""
    recorded = run.recorded
    assert [(call["method"], call["path"]) for call in recorded] == shown(upstream.hits)
    assert {(call["decision"], call["outcome"], call["host"]) for call in recorded} == {("allow", "done", "localhost")}
    if said:
        made = [json.loads(line) for line in said.splitlines()]
        assert [(method, path) for method, path, _, _ in made] == shown(upstream.hits)
        assert [call["status"] for call in recorded] == [status for _, _, status, _ in made]
        digests = [digest for _, _, _, digest in made]
        assert [digest and hit.body_sha256 for hit, digest in zip(upstream.hits, digests, strict=True)] == digests


@pytest.mark.parametrize("client", PYTHON)
def test_python(client: str, python: Path, run: Run, upstream: Upstream) -> None:
    said = run(python, HERE / "generic.py", client, upstream.origin)
    assert said
    agree(run, upstream, said)


@pytest.mark.parametrize("client", NODE)
def test_node(client: str, node_path: Path, run: Run, upstream: Upstream) -> None:
    said = run("node", HERE / "generic.cjs", client, upstream.origin, NODE_PATH=str(node_path))
    assert said
    agree(run, upstream, said)


BODIES: dict[str, list[str]] = {
    "none": [],
    "json": ["--json", '{"amount": 5}'],
    "form": ["-d", "a=1", "-d", "b=2"],
    "multipart": ["-F", "f=hello"],
    "large": ["--data-binary", "@large", "-H", "content-type: application/octet-stream"],
    "chunked": ["--data-binary", "@large", "-H", "transfer-encoding: chunked", "-H", "content-type: a/b"],
    "expect": ["--data-binary", "@large", "-H", "expect: 100-continue", "-H", "content-type: a/b"],
}


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(version: str, run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "run" / "large").write_bytes(b"x" * 2_000_000)
    lines = []
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        for kind, options in BODIES.items():
            if (kind == "none" or method in ("POST", "PUT", "PATCH")) and not (
                kind == "chunked" and version == "--http2"
            ):
                flag = ["-I"] if method == "HEAD" else ["-X", method]
                lines.append(
                    ["curl", "-sS", "--fail", version, "-o", "out", *flag, *options, f"{upstream.origin}/{kind}"]
                )
    script = "\n".join(" ".join(f"'{word}'" for word in line) for line in lines)
    run("sh", "-ec", script)
    assert len(upstream.hits) == len(lines)
    assert {hit.body_bytes for hit in upstream.hits if hit.path in ("/large", "/chunked", "/expect")} == {2_000_000}
    agree(run, upstream)


def test_wget(run: Run, upstream: Upstream) -> None:
    run("wget", "-q", "-O", "out", "--post-data", "a=1", f"{upstream.origin}/posted")
    assert shown(upstream.hits) == [("POST", "/posted")]
    agree(run, upstream)


def test_git_clones_over_https(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    work, served = tmp_path / "work", upstream.directory / "repo.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "-q", work], check=True)
    (work / "file").write_text("hello")
    subprocess.run([*git, "-C", work, "add", "."], check=True)
    subprocess.run([*git, "-C", work, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "clone", "-q", "--bare", work, served], check=True)
    subprocess.run([*git, "-C", served, "update-server-info"], check=True)
    run("git", "clone", "-q", f"{upstream.origin}/git/repo.git", "cloned")
    assert (tmp_path / "run" / "cloned" / "file").read_text() == "hello"
    recorded = sorted((call["method"], call["path"], call["status"]) for call in run.recorded)
    assert [(method, path) for method, path, _ in recorded] == sorted(shown(upstream.hits))  # git asks in parallel
    assert ("GET", "/git/repo.git/info/refs", 200) in recorded


def test_pip_downloads(python: Path, run: Run, upstream: Upstream, tmp_path: Path) -> None:
    run(python, "-m", "pip", "-q", "download", "--no-deps", "--index-url", f"{upstream.origin}/simple", "nothing")
    assert (tmp_path / "run" / WHEEL).exists()
    agree(run, upstream)


def test_npm_installs(node_path: Path, run: Run, upstream: Upstream, tmp_path: Path) -> None:
    flags = ["--registry", f"{upstream.origin}/npm/", "--cache", tmp_path / "npm", "--no-audit", "--no-fund"]
    run("npm", "install", *flags, "nothing")
    assert (tmp_path / "run" / "node_modules" / "nothing" / "package.json").exists()
    agree(run, upstream)


AWS = """
import boto3, sys
from botocore.config import Config
place = dict(endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE",
             aws_secret_access_key="secret", config=Config(s3={"addressing_style": "path"}))
s3 = boto3.client("s3", **place)
s3.create_bucket(Bucket="one")
s3.put_object(Bucket="one", Key="k", Body=b"x" * 100_000)
assert s3.get_object(Bucket="one", Key="k")["Body"].read() == b"x" * 100_000
s3.delete_object(Bucket="one", Key="k")
sqs = boto3.client("sqs", **place)
sqs.send_message(QueueUrl=sqs.create_queue(QueueName="q")["QueueUrl"], MessageBody="hi")
table = dict(TableName="t", KeySchema=[{"AttributeName": "a", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
             AttributeDefinitions=[{"AttributeName": "a", "AttributeType": "S"}])
dynamo = boto3.client("dynamodb", **place)
dynamo.create_table(**table)
dynamo.put_item(TableName="t", Item={"a": {"S": "1"}})
assert dynamo.get_item(TableName="t", Key={"a": {"S": "1"}})["Item"] == {"a": {"S": "1"}}
"""


def test_boto3_with_moto(python: Path, authority: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "run").mkdir()
    _, ca, leaf = authority
    server = python.with_name("moto_server")
    command = [server, "-H", "127.0.0.1", "-p", str(port), "-s", "-c", leaf, "-k", leaf]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as moto:
        assert moto.stderr is not None
        try:
            while "Running on" not in moto.stderr.readline():
                assert moto.poll() is None
            run = Run(tmp_path / "run", f"https://localhost:{port}", ca)
            run(python, "-c", AWS, f"https://localhost:{port}")
        finally:
            moto.terminate()
        said = re.sub(r"\x1b\[\d+m", "", moto.stderr.read())
    counted = re.findall(r'"([A-Z]+) (/[^ ?]*)\S* HTTP/1.1" (\d+)', said)
    assert len(counted) == 9
    assert [(call["method"], call["path"], str(call["status"])) for call in run.recorded] == counted


def test_every_tool_is_there() -> None:
    assert [name for name in ("curl", "wget", "git", "node", "npm") if shutil.which(name) is None] == []
