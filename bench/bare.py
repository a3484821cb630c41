"""Our embedding of mitmproxy with the guards off: everything is let through, nothing is decided or recorded.

Shows what deciding and recording cost. A process of its own. Usage: `python -m bench.bare PORT CONFDIR CA_FILE`.
"""

from __future__ import annotations

import asyncio
import datetime
import sys
from pathlib import Path

from mitmproxy import http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from proxy.addon import Addon
from proxy.admission import Admission
from proxy.ca import ensure_ca
from proxy.exchange import BufferPool, Exchange
from proxy.layers import EXCHANGE
from proxy.master import Master
from proxy.refusal import Reply
from rules.call import Call
from rules.decision import Decision
from rules.index import Index
from rules.ruleset import RuleSet

REFUSAL = Reply(503, "", (), b"")
CALL = Call("bench", "", "POST", "https", "localhost", 443, "/", ("",))
DECISION = Decision("allow", "", "", (), "", exact_host=True)
ADMISSION = Admission("", CALL, DECISION, RuleSet("", {}, (), Index.build(())), 0, 0, None)


class Open(Addon):
    """The hooks, with nothing behind them."""

    def __init__(self) -> None:
        self._pool = BufferPool()

    def http_connect(self, flow: http.HTTPFlow) -> None:
        pass

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        exchange = Exchange("", REFUSAL, self._pool)
        exchange.refusal = None
        exchange.admission = ADMISSION
        exchange.exact_host = True
        exchange.body_cap_bytes = 1 << 20
        flow.metadata[EXCHANGE] = exchange

    async def request(self, flow: http.HTTPFlow) -> None:
        pass

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        pass

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        assert flow.response is not None
        flow.response.stream = True

    def response(self, flow: http.HTTPFlow) -> None:
        pass

    def error(self, flow: http.HTTPFlow) -> None:
        pass

    async def client_disconnected(self, client: object) -> None:
        pass


async def main(port: int, confdir: Path, upstream_ca: Path) -> None:
    ensure_ca(confdir, datetime.datetime.now(datetime.UTC))
    await Master(Open(), confdir, upstream_ca).listen("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
