"""Run by the Python of a command, with its packages: which clients are there, and one call by one of them.

`probe.py` prints the versions of what is installed. `probe.py CLIENT URL` makes the call and prints what went wrong,
and whether this process asked for the host's address itself. Python 3.8 or later; nothing but the standard library and
what is probed, which is loaded by name.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, Dict, Tuple

TIMEOUT_S = 15
KEY = "sk-test-borderpost-doctor"


def _requests(m: Any, url: str) -> None:
    m.get(url, timeout=TIMEOUT_S)


def _httpx(m: Any, url: str) -> None:
    m.get(url, timeout=TIMEOUT_S)


def _httpx_http2(m: Any, url: str) -> None:
    with m.Client(http2=True, timeout=TIMEOUT_S) as client:
        client.get(url)


def _aiohttp(m: Any, url: str) -> None:
    async def ask() -> None:
        async with m.ClientSession(timeout=m.ClientTimeout(total=TIMEOUT_S)) as session, session.get(url) as answer:
            await answer.read()

    import_module("asyncio").run(ask())


def _urllib3(m: Any, url: str) -> None:
    m.PoolManager(retries=False, timeout=TIMEOUT_S).request("GET", url)


def _urllib(m: Any, url: str) -> None:
    m.urlopen(url, timeout=TIMEOUT_S).read()


def _httplib2(m: Any, url: str) -> None:
    m.Http(timeout=TIMEOUT_S).request(url)


def _boto3(m: Any, url: str) -> None:
    config = import_module("botocore.config").Config(
        retries={"total_max_attempts": 1}, connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S
    )
    made = m.client(
        "sts",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key=KEY,
        config=config,
    )
    made.get_caller_identity()


def _stripe(m: Any, url: str) -> None:
    m.api_key, m.api_base, m.max_network_retries = KEY, url, 0
    m.Charge.retrieve("ch_1")


def _openai(m: Any, url: str) -> None:
    m.OpenAI(api_key=KEY, base_url=url, max_retries=0, timeout=TIMEOUT_S).models.list()


def _anthropic(m: Any, url: str) -> None:
    m.Anthropic(api_key=KEY, base_url=url, max_retries=0, timeout=TIMEOUT_S).models.list()


def _slack(m: Any, url: str) -> None:
    m.WebClient(token=KEY, base_url=url + "/api/", timeout=TIMEOUT_S).api_test()


def _websockets(m: Any, url: str) -> None:
    with m.connect(url.replace("https:", "wss:", 1), open_timeout=TIMEOUT_S):
        pass


CLIENTS: Dict[str, Tuple[str, str, Callable[[Any, str], None]]] = {
    "urllib": ("urllib.request", "", _urllib),
    "requests": ("requests", "", _requests),
    "httpx": ("httpx", "", _httpx),
    "httpx, HTTP/2": ("httpx", "h2", _httpx_http2),
    "httpx2": ("httpx2", "", _httpx),
    "aiohttp": ("aiohttp", "", _aiohttp),
    "urllib3": ("urllib3", "", _urllib3),
    "httplib2": ("httplib2", "", _httplib2),
    "boto3": ("boto3", "", _boto3),
    "stripe": ("stripe", "", _stripe),
    "openai": ("openai", "", _openai),
    "anthropic": ("anthropic", "", _anthropic),
    "slack_sdk": ("slack_sdk", "", _slack),
    "websockets": ("websockets.sync.client", "", _websockets),
}
"""Client -> the module to load, another one that it takes, and one call."""


def installed() -> Dict[str, str]:
    """The clients that are there, with their versions."""
    metadata = import_module("importlib.metadata")
    found = {}
    for name, (module, also, _) in CLIENTS.items():
        package = module.partition(".")[0]
        if find_spec(package) is None or (also and find_spec(also) is None):
            continue
        try:
            found[name] = "" if package == "urllib" else metadata.version(package)
        except Exception:
            found[name] = ""
    return found


def probe(client: str, url: str) -> Dict[str, Any]:
    """Make one call. `error`: what was raised, or nothing. `resolved`: the host's address was asked for here."""
    module, _, call = CLIENTS[client]
    host = url.split("/")[2]
    asked = []

    def listen(event: str, arguments: Any) -> None:
        if event == "socket.getaddrinfo" and arguments[0] in (host, host.encode()):
            asked.append(event)

    sys.addaudithook(listen)
    error = ""
    try:
        call(import_module(module), url)
    except Exception as raised:
        error = "{}: {}".format(type(raised).__name__, " ".join(str(raised).split()))
    return {"error": error[:500], "resolved": bool(asked)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(probe(*sys.argv[1:]) if sys.argv[1:] else installed()) + "\n")
