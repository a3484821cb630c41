"""Client by client, method by method, body by body: the ledger says what the upstream counted, entry by entry."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.answers import WHEEL
from tests.clients.conftest import HERE, Run, Tls, node, shown
from tests.clients.upstream import Upstream

RAW = ("requests", "httpx", "httpx-http2", "aiohttp", "urllib3", "urllib", "httplib2")
RAW_NODE = ("fetch", "https", "https.Agent", "axios", "got", "undici", "undici.Agent", "node-fetch")
SDKS = {
    "stripe": "/v1/refunds",
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "boto3": "/",
    "boto3-s3": "/one/k",
    "slack_sdk": "/chat.postMessage",
    "twilio": "/2010-04-01/Accounts/AC1/Messages.json",
    "sendgrid": "/v3/mail/send",
    "PyGithub": "/repos/acme/shop/issues",
    "notion-client": "/v1/pages",
    "gql": "/graphql",
}
SDKS_NODE = {
    "stripe-node": "/v1/refunds",
    "openai-node": "/v1/chat/completions",
    "@anthropic-ai/sdk": "/v1/messages",
    "@aws-sdk": "/",
    "@slack/web-api": "/chat.postMessage",
    "@octokit/rest": "/repos/acme/shop/issues",
    "@notionhq/client": "/v1/pages",
    "twilio-node": "/2010-04-01/Accounts/AC1/Messages.json",
}
"""SDK -> where its write goes."""

OLD, NEW = ("http/1.1",), ("h2", "http/1.1")
"""What an upstream speaks."""

both = pytest.mark.parametrize(
    "upstream",
    [pytest.param(OLD, id="to-http1", marks=pytest.mark.long), pytest.param(NEW, id="to-http2")],
    indirect=True,
)


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


def spoken(upstream: Upstream) -> set[str]:
    return {hit.version for hit in upstream.hits}


@pytest.mark.parametrize("client", RAW)
def test_python(client: str, python: Path, run: Run, upstream: Upstream) -> None:
    said = run(python, HERE / "generic.py", client, upstream.origin)
    assert said
    agree(run, upstream, said)
    assert spoken(upstream) == {"HTTP/1.1"}


@pytest.mark.parametrize("client", RAW_NODE)
def test_node(client: str, run: Run, upstream: Upstream) -> None:
    said = run("node", node(run, "generic.cjs"), client, upstream.origin)
    assert said
    agree(run, upstream, said)


@pytest.mark.parametrize("upstream", [NEW], ids=["to-http2"], indirect=True)
@pytest.mark.parametrize(("client", "version"), [("requests", "HTTP/1.1"), ("httpx-http2", "HTTP/2")])
def test_an_upstream_that_speaks_both(client: str, version: str, python: Path, run: Run, upstream: Upstream) -> None:
    agree(run, upstream, run(python, HERE / "generic.py", client, upstream.origin))
    assert spoken(upstream) == {version}


@both
@pytest.mark.parametrize("client", ["http2", "undici-http2"])
def test_http2_of_node(client: str, run: Run, upstream: Upstream) -> None:
    agree(run, upstream, run("node", node(run, "generic.cjs"), client, upstream.origin))


@pytest.mark.long  # test_retries.py compares the same writes
@pytest.mark.parametrize("sdk", SDKS)
def test_sdk(sdk: str, python: Path, run: Run, upstream: Upstream) -> None:
    run(python, HERE / "sdks.py", "once", sdk, upstream.origin)
    assert shown(upstream.hits) == [("POST", SDKS[sdk])]
    agree(run, upstream)


@pytest.mark.long
@pytest.mark.parametrize("sdk", SDKS_NODE)
def test_sdk_of_node(sdk: str, run: Run, upstream: Upstream) -> None:
    run("node", node(run, "sdks.cjs"), "once", sdk, upstream.origin)
    assert shown(upstream.hits) == [("POST", SDKS_NODE[sdk])]
    agree(run, upstream)


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_streamed_answer(sdk: str, python: Path, run: Run, upstream: Upstream) -> None:
    assert run(python, HERE / "sdks.py", "stream", sdk, upstream.origin) == "Refunds are made by people."
    agree(run, upstream)


@pytest.mark.parametrize("sdk", ["openai-node", "@anthropic-ai/sdk"])
def test_streamed_answer_in_node(sdk: str, run: Run, upstream: Upstream) -> None:
    assert run("node", node(run, "sdks.cjs"), "stream", sdk, upstream.origin) == "Refunds are made by people."
    agree(run, upstream)


MESSAGES: list[str | bytes] = ["hello", b"\x00\x01" * 1000, "ü" * 70_000, "bye"]


@pytest.mark.parametrize("client", ["websockets", "websockets-sync", "aiohttp", "ws", "undici"])
def test_websocket(client: str, python: Path, run: Run, upstream: Upstream) -> None:
    url = upstream.origin.replace("https", "wss") + "/socket"
    if client in ("ws", "undici"):
        run("node", node(run, "sockets.cjs"), client, url)
    else:
        run(python, HERE / "sockets.py", client, url)
    assert upstream.messages == MESSAGES
    assert shown(upstream.hits) == [("GET", "/socket")]
    (call,) = run.recorded
    assert (call["scheme"], call["path"], call["decision"], call["outcome"], call["status"]) == (
        "wss", "/socket", "allow", "done", 101,
    )  # fmt: skip
    assert run.details(call["id"])["outcomes"][0]["messages"] == [len(MESSAGES), len(MESSAGES)]


BODIES: dict[str, list[str]] = {
    "none": [],
    "json": ["--json", '{"amount": 5}'],
    "form": ["-d", "a=1", "-d", "b=2"],
    "multipart": ["-F", "f=hello"],
    "large": ["--data-binary", "@large", "-H", "content-type: application/octet-stream"],
    "chunked": ["--data-binary", "@large", "-H", "transfer-encoding: chunked", "-H", "content-type: a/b"],
    "expect": ["--data-binary", "@large", "-H", "expect: 100-continue", "-H", "content-type: a/b"],
}


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        pytest.param("--http1.1", OLD, id="http1-to-http1"),
        pytest.param("--http1.1", NEW, id="http1-to-http2", marks=pytest.mark.long),
        pytest.param("--http2", OLD, id="http2-to-http1", marks=pytest.mark.long),
        pytest.param("--http2", NEW, id="http2-to-http2"),
    ],
    indirect=["upstream"],
)
def test_curl(version: str, run: Run, upstream: Upstream) -> None:
    (run.directory / "large").write_bytes(b"x" * 2_000_000)
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


GIT = """
git clone -q "$1/git/repo.git" cloned
cd cloned
git config user.name a; git config user.email a@b
echo hello >small; head -c 3000000 /dev/urandom >large
git add .; git commit -qm two; git push -q origin HEAD:main
git clone -q "$1/git/repo.git" ../again
"""


@both
def test_git(run: Run, upstream: Upstream) -> None:
    served = upstream.directory / "repo.git"
    subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", served], check=True)
    run("sh", "-ec", GIT, "sh", upstream.origin)
    assert (run.directory / "again" / "large").read_bytes() == (run.directory / "cloned" / "large").read_bytes()
    assert ("POST", "/git/repo.git/git-receive-pack") in shown(upstream.hits)
    assert max(hit.body_bytes for hit in upstream.hits) > 3_000_000
    agree(run, upstream)


def test_pip(python: Path, run: Run, upstream: Upstream) -> None:
    pip = (
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--target",
        "installed",
    )
    run(*pip, "--index-url", f"{upstream.origin}/simple", "nothing")
    assert (run.directory / "installed" / "nothing-1.0.dist-info").is_dir()
    assert shown(upstream.hits) == [("GET", "/simple/nothing/"), ("GET", f"/files/{WHEEL}")]
    agree(run, upstream)


def test_npm(run: Run, upstream: Upstream) -> None:
    if not shutil.which("npm"):
        pytest.skip("there is no Node.js")
    flags = ["--registry", f"{upstream.origin}/npm/", "--cache", run.directory / "npm", "--no-audit", "--no-fund"]
    run("npm", "install", *flags, "nothing")
    assert (run.directory / "node_modules" / "nothing" / "package.json").exists()
    agree(run, upstream)


AWS = """
import io, sys, urllib.request
import boto3
from botocore.config import Config
place = dict(endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE",
             aws_secret_access_key="secret", config=Config(s3={"addressing_style": "path"}))
s3 = boto3.client("s3", **place)
s3.create_bucket(Bucket="one")
s3.put_object(Bucket="one", Key="k", Body=b"x" * 100_000)
assert s3.get_object(Bucket="one", Key="k")["Body"].read() == b"x" * 100_000
in_order = boto3.s3.transfer.TransferConfig(use_threads=False)
s3.upload_fileobj(io.BytesIO(b"y" * 9_000_000), "one", "large", Config=in_order)
assert s3.head_object(Bucket="one", Key="large")["ContentLength"] == 9_000_000
link = s3.generate_presigned_url("get_object", Params={"Bucket": "one", "Key": "k"})
assert len(urllib.request.urlopen(link).read()) == 100_000
s3.delete_object(Bucket="one", Key="k")
sqs = boto3.client("sqs", **place)
queue = sqs.create_queue(QueueName="q")["QueueUrl"]
sqs.send_message(QueueUrl=queue, MessageBody="hi")
assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hi"
table = dict(TableName="t", KeySchema=[{"AttributeName": "a", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
             AttributeDefinitions=[{"AttributeName": "a", "AttributeType": "S"}])
dynamo = boto3.client("dynamodb", **place)
dynamo.create_table(**table)
dynamo.put_item(TableName="t", Item={"a": {"S": "1"}})
assert dynamo.get_item(TableName="t", Key={"a": {"S": "1"}})["Item"] == {"a": {"S": "1"}}
mail = boto3.client("ses", **place)
mail.verify_email_identity(EmailAddress="a@example.com")
body = {"Subject": {"Data": "hi"}, "Body": {"Text": {"Data": "hello"}}}
mail.send_email(Source="a@example.com", Destination={"ToAddresses": ["b@example.com"]}, Message=body)
assert boto3.client("sts", **place).get_caller_identity()["Account"]
"""


@contextmanager
def moto(python: Path, tls: Tls) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Moto's server: the process, and its origin."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [
        python.with_name("moto_server"),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
        "-s",
        "-c",
        tls[1],
        "-k",
        tls[1],
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "Running on" not in process.stderr.readline():
                assert process.poll() is None
            yield process, f"https://localhost:{port}"
        finally:
            process.terminate()


def test_boto3_with_moto(python: Path, tls: Tls, tmp_path: Path) -> None:
    with moto(python, tls) as (process, origin):
        run = Run(tmp_path / "run", origin, tls[0])
        run(python, "-c", AWS, origin)
        process.terminate()
        assert process.stderr is not None
        said = re.sub(r"\x1b\[\d+m", "", process.stderr.read())
    counted = re.findall(r'"([A-Z]+) (/[^ ?]*)\S* HTTP/1.1" (\d+)', said)
    assert len(counted) == 19
    assert [(call["method"], call["path"], str(call["status"])) for call in run.recorded] == counted


def test_every_tool_is_there() -> None:
    assert [name for name in ("curl", "wget", "git") if shutil.which(name) is None] == []
