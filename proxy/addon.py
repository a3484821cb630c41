"""mitmproxy's hooks: the only place where a flow becomes a call and a decision becomes a response.

mitmproxy lets a request through when a hook raises. So an exchange begins refused, and the refusal is lifted as the
very last act; whatever is raised in between leaves it standing, and `layers.Stream` lets nothing out while it stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import cache

from mitmproxy import connection, http, tls
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from proxy import dial
from proxy.admission import Admission, Asked, withdrawn
from proxy.chain import UpstreamProxy
from proxy.commands import GoesOn
from proxy.destination import refuse_name
from proxy.doorman import Client, Doorman
from proxy.exchange import ANSWER_CAP_BYTES, BufferPool, Exchange, Passed
from proxy.flows import (
    answer_of_socket,
    digest_of,
    grpc_status_of,
    has_own_id,
    headers_of,
    lowered,
    one_line,
    response_of,
    set_on,
    show_failure,
    stored_answer,
    stub_of,
    values_of,
)
from proxy.gate import Gate
from proxy.layers import DESTINATION_REFUSED, EXCHANGE, exchange_of, mark_private, next_layer
from proxy.ledger.entries import StoredAnswer
from proxy.ownhost import OwnHost
from proxy.refusal import Reply, readable, render_failure
from proxy.websocket import Said
from proxy.wire.answer import read_answer_body
from proxy.wire.error import WireError
from proxy.wire.events import usage_events
from proxy.wire.grpcweb import web_trailers
from proxy.wire.host import canonical_host
from proxy.wire.request import (
    Head,
    as_websocket,
    headers_to_strip,
    is_upgrade,
    opens_websocket,
    read_body,
    read_head,
    read_message,
    with_credential,
)
from rules import decide
from rules.call import UNREAD_BODY, Call
from rules.decision import Answer
from rules.needs import needs as needs_of
from rules.pattern import MESSAGE
from rules.wording import cut_off

UPSTREAM_TIMEOUT_S = 600.0
"""How long an upstream may be silent, and how long an exchange goes on after its client has left."""

SMALL_ANSWER_BYTES = 64 * 1024
"""An answer that says that it is at most this long is handed on in one piece."""

log = logging.getLogger("borderpost")


class Addon:
    """The hooks. `own` are the addresses that we listen on; `new_call_id` makes an id for a moment in ns.

    `through`: the proxy that everything goes through; it resolves the names of calls.
    """

    def __init__(
        self,
        gate: Gate,
        doorman: Doorman,
        hash_secret: Callable[[bytes], str],
        new_call_id: Callable[[int], str],
        own: Callable[[], frozenset[tuple[str, int]]],
        own_host: OwnHost,
        through: UpstreamProxy | None = None,
    ) -> None:
        self._gate = gate
        self._doorman = doorman
        self._hash_secret = hash_secret
        self._new_call_id = new_call_id
        self._own = own
        self._own_host = own_host
        self._through = through
        self._pool = BufferPool()
        self._agents: dict[str, str] = {}
        self._credentials: dict[str, list[str]] = {}
        self._live: dict[str, set[Exchange]] = {}
        self._exact: dict[str, set[tuple[str, int]]] = {}
        self.stopping = False

    # -- who -------------------------------------------------------------------------------------------------------

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """A tunnel is opened: find out who opens it. What may pass through it is decided call by call."""
        call_id = self._new_call_id(self._gate.clock.now_ns())
        asked = Asked("CONNECT", flow.request.http_version)
        flow.response = response_of(_policy_error(False, False))
        try:
            credentials = values_of(flow.request.headers.fields, b"proxy-authorization")
            self._agents[flow.client_conn.id] = self._identify(credentials).agent
            self._credentials[flow.client_conn.id] = credentials
        except WireError as error:
            reply = self._gate.refuse_unread(stub_of(flow, ""), call_id, error, asked)
            flow.response = response_of(reply)
            return
        except BaseException:
            log.exception("a tunnel was refused, because of an error of ours")
            raise
        self._own_host.connected(flow.request.host)
        flow.response = None

    def _identify(self, sent: list[str]) -> Client:
        if len(sent) > 1:
            raise WireError("proxy-auth-required", "There is more than one Proxy-Authorization header.")
        return self._doorman.identify(sent[0] if sent else None, self._gate.clock.now_ns())

    # -- the request -----------------------------------------------------------------------------------------------

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """The head has arrived. Decide now if the head is enough; else have the body buffered."""
        call_id = self._new_call_id(self._gate.clock.now_ns())
        method = flow.request.method
        exchange = Exchange(call_id, _policy_error(method == "HEAD", flow.request.is_http2), self._pool)
        exchange.asked = Asked(method, flow.request.http_version)
        flow.metadata[EXCHANGE] = exchange
        await self._guarded(flow, exchange, self._decide_on_head(flow, exchange))

    async def request(self, flow: http.HTTPFlow) -> None:
        """The body has arrived, or is over its cap. Decide, unless the head was enough."""
        exchange = exchange_of(flow)
        if exchange is None:
            flow.response = response_of(_policy_error(False, False))
            return
        if exchange.admission is not None or flow.response is not None:
            return
        await self._guarded(flow, exchange, self._decide_on_body(flow, exchange))
        exchange.release_buffer()

    async def _guarded(
        self, flow: http.HTTPFlow, exchange: Exchange, deciding: Coroutine[None, None, Reply | None]
    ) -> None:
        """The one wrapper: the exchange's refusal stands from its beginning, and is lifted last, only if all went well.

        `deciding` gives the reply that refuses (or replays), or None when the call may go on.
        """
        assert exchange.refusal is not None
        exchange.answer_now = bool(flow.metadata.get("invalid"))
        refused: WireError | None = None
        reply: Reply | None = None
        try:
            reply = await deciding
        except WireError as error:
            refused = error
        except Exception:
            log.exception("a call was refused, because of an error of ours")
            refused = WireError("policy-error", "Borderpost could not decide this call, so it was not sent.")
        if refused is not None:
            call = exchange.call or stub_of(flow, self._agents.get(flow.client_conn.id, ""))
            reply = self._gate.refuse_unread(call, exchange.call_id, refused, exchange.asked)
        if reply is not None:
            exchange.refusal = reply
            flow.response = response_of(reply)
            expects = values_of(flow.request.headers.fields, b"expect")
            exchange.answer_now = exchange.answer_now or bool(expects and flow.metadata.get("has_body"))
            return
        if exchange.admission is not None:
            exchange.refusal = None

    async def _decide_on_head(self, flow: http.HTTPFlow, exchange: Exchange) -> Reply | None:
        request = flow.request
        invalid = flow.metadata.get("invalid")
        if request.is_http2 and request.data.method == b"CONNECT":
            raise WireError("upgrade-refused", "Over HTTP/2 no other protocol is opened: open a WebSocket by HTTP/1.1.")
        if invalid:
            raise WireError("ambiguous-request", f"The request is not valid HTTP: {one_line(str(invalid))}.")
        if self.stopping:
            raise WireError("shutting-down", "Borderpost is stopping, so this call was not sent.")
        headers = request.headers.fields
        credentials = values_of(headers, b"proxy-authorization") or self._credentials.get(flow.client_conn.id, [])
        client = self._identify(credentials)  # once more for each call: the token may have been taken away since
        exchange.credentials = credentials
        agent = client.agent
        run = client.run or self._gate.runs.run_of(agent, self._gate.clock.now_ns())
        call = read_head(
            Head(
                method=request.data.method,
                scheme=request.scheme,
                host=request.data.host,
                port=request.data.port,
                target=request.data.path,
                authority=flow.metadata.get("authority", b""),
                http_version=request.http_version,
                headers=headers,
                sni=flow.client_conn.sni,
                tunnelled=flow.metadata["tunnelled"],
                host_verified=True,
            ),
            agent=agent,
            run=run,
            hash_secret=self._hash_secret,
        )
        exchange.call = call
        answer = self._own_host.answer(call)
        if answer is not None:
            return answer
        if is_upgrade(call):
            if not opens_websocket(call):
                raise WireError("upgrade-refused", "The only protocol that a call may change to is WebSocket.")
            exchange.call = call = as_websocket(call)
            exchange.upgrade = True
        strip = headers_to_strip(call)
        if any(name in strip for name, _ in call.headers):
            kept = (field for field in headers if field[0].lower().decode("latin-1") not in strip)
            request.headers.fields = tuple(kept)
        needs = needs_of(self._gate.ruleset, call)
        if needs.credential:
            exchange.call = call = with_credential(call, needs.credential, self._hash_secret)
        exchange.finish = needs.claim
        exchange.read_answer = needs.answer
        exchange.hold_answer = needs.show_as
        exchange.body_cap_bytes = needs.cap_bytes
        has_body = bool(flow.metadata.get("has_body"))
        length = call.header("content-length") or ""
        if has_body and needs.body:
            if length.isdigit() and int(length) > needs.cap_bytes:
                raise WireError("body-too-large", _too_large(needs.cap_bytes))
            exchange.asked_by = needs.asked_by
            return None
        if not has_body:
            return await self._admit(flow, exchange, read_body(call, b""))
        exchange.streamed = Passed(0)
        reply = await self._admit(flow, exchange, call)
        request.stream = exchange.streamed if reply is None else False
        return reply

    async def _decide_on_body(self, flow: http.HTTPFlow, exchange: Exchange) -> Reply | None:
        if exchange.oversized or exchange.call is None:
            raise WireError("body-too-large", _too_large(exchange.body_cap_bytes))
        if exchange.stalled:
            raise WireError("body-unfinished", _unfinished(exchange.asked_by))
        raw = flow.request.raw_content or b""
        if flow.request.trailers:
            raise WireError("ambiguous-request", "Trailers after a request are not supported.")
        if flow.request.is_http2:
            flow.request.headers["content-length"] = str(len(raw))
        exchange.call = read_body(exchange.call, raw, exchange.body_cap_bytes)
        return await self._admit(flow, exchange, exchange.call)

    async def _admit(self, flow: http.HTTPFlow, exchange: Exchange, call: Call) -> Reply | None:
        live = self._live.setdefault(flow.client_conn.id, set())
        live.add(exchange)
        try:
            admission = await self._gate.admit(call, exchange.call_id, exchange.asked, exchange.gone)
        except BaseException:
            self._end(flow.client_conn.id, exchange)
            raise
        if admission.reply is not None:
            exchange.admission = admission
            self._end(flow.client_conn.id, exchange)
            return admission.reply
        if exchange.given_up:
            self._settle(flow.client_conn.id, exchange, admission, withdrawn("its client left"), None)
            return exchange.refusal
        try:
            set_on(flow.request, call.body.kind, admission.decision.send)
        except BaseException:
            self._settle(flow.client_conn.id, exchange, admission, withdrawn("an error of ours"), None)
            raise
        exchange.admission = admission
        exchange.exact_host = admission.decision.exact_host
        if exchange.exact_host:
            self._exact.setdefault(flow.client_conn.id, set()).add((flow.request.host, flow.request.port))
        return None

    def _end(self, client_id: str, exchange: Exchange) -> None:
        exchange.settled = True
        exchange.ended.set()
        live = self._live.get(client_id)
        if live is not None:
            live.discard(exchange)

    # -- the way out -----------------------------------------------------------------------------------------------

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection is about to be dialled: check every address that its name stands for."""
        server = data.server
        server.error = DESTINATION_REFUSED + "it could not be checked"
        assert server.address is not None
        host, port = server.address[:2]
        exact = (host, port) in self._exact.get(data.client.id, ())
        try:
            if self._through is None:
                what = "the host name"
                reason, private = await dial.check(host, port, exact=exact, own=self._own())
            else:
                what = "the name of the upstream proxy"
                reason, private = refuse_name(canonical_host(host), exact_name=exact, port=port, own=self._own())
                if reason is None:
                    first = self._through
                    reason, _ = await dial.check(first.host, first.port, exact=True, own=self._own())
                    reason = reason and f"the upstream proxy cannot be used, {reason}"
        except OSError as error:
            server.error = f"cannot resolve {what}: {error.strerror or error}"
            return
        except WireError as error:
            server.error = DESTINATION_REFUSED + error.detail
            return
        except Exception:
            log.exception("a destination was refused, because of an error of ours")
            return
        mark_private(server, private)
        server.error = None if reason is None else DESTINATION_REFUSED + reason

    # -- the answer ------------------------------------------------------------------------------------------------

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The head of an answer has arrived: stream its body, unless it is small, or has to be held back."""
        exchange = exchange_of(flow)
        if exchange is None or exchange.refusal is not None or exchange.settled:
            return
        assert flow.response is not None
        events = usage_events(headers_of(flow.response)) if exchange.read_answer else None
        keep = exchange.finish or exchange.read_answer or has_own_id(exchange)
        exchange.copy = Passed(ANSWER_CAP_BYTES if keep else 0, events, web_trailers(headers_of(flow.response)))
        length = values_of(flow.response.headers.fields, b"content-length")
        if exchange.hold_answer and "json" in flow.response.headers.get("content-type", ""):
            return  # `layers.Stream` holds it back, unless it turns out to be too large
        if len(length) != 1 or not length[0].isdigit() or int(length[0]) > SMALL_ANSWER_BYTES:
            flow.response.stream = exchange.copy

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer has arrived whole: record the outcome."""
        exchange = exchange_of(flow)
        if exchange is None or exchange.admission is None or exchange.settled or exchange.copy is None:
            return
        assert flow.response is not None
        if exchange.socket is not None:
            return  # it has only begun; `socket_end` comes at its end
        if not flow.response.stream:
            exchange.copy(flow.response.raw_content or b"")
        kept = exchange.finish and not flow.response.trailers  # without its trailers it would be another answer
        stored = stored_answer(flow.response, exchange.call_id, exchange.copy) if kept else None
        headers = headers_of(flow.response)
        web = exchange.copy.web
        answer = Answer(
            status=flow.response.status_code,
            complete=True,
            sent=True,
            stored=stored is not None,
            replayed=("idempotent-replayed", "true") in headers,
            headers=headers,
            trailers=(lowered(flow.response.trailers.fields) if flow.response.trailers else ())
            + (web.trailers if web is not None else ()),
            only_trailers=web is not None and web.only,
            size_bytes=exchange.copy.size_bytes,
            digest=self._hash_secret(digest_of(exchange, exchange.copy, headers).encode()),
            body=read_answer_body(headers, exchange.copy.body()) if exchange.read_answer else UNREAD_BODY,
            usage=exchange.copy.usage,
        )
        bodiless = flow.request.method == "HEAD" or flow.response.status_code in (204, 205, 304)
        held = not flow.response.stream and not bodiless
        shown_as = self._settle(flow.client_conn.id, exchange, exchange.admission, answer, stored, held)
        if shown_as:
            show_failure(flow.response, shown_as)

    def error(self, flow: http.HTTPFlow) -> None:
        """The exchange failed. Record what is known, and answer in our form if the client has no answer yet."""
        exchange = exchange_of(flow)
        if exchange is None:
            return
        exchange.release_buffer()
        if exchange.refusal is not None and flow.response is None:
            if exchange.call is not None and exchange.admission is None and not exchange.settled:
                broken = WireError("ambiguous-request", "The body did not arrive whole, so this call was not sent.")
                exchange.refusal = self._gate.refuse_unread(exchange.call, exchange.call_id, broken, exchange.asked)
            flow.response = response_of(exchange.refusal)
        admission = exchange.admission
        if admission is None or admission.reply is not None or exchange.settled:
            return
        message = one_line(flow.error.msg if flow.error else "").removeprefix("Connection killed: ")
        begun = flow.response is not None and flow.response.stream
        answer = Answer(
            status=flow.response.status_code if flow.response is not None and begun else 0,
            complete=False,
            sent=exchange.sent,
            withdrawn=exchange.client_left and not exchange.sent,
            abandoned=exchange.cut is not None or (exchange.client_left and not exchange.finish),
            error=message,
            size_bytes=exchange.copy.size_bytes if exchange.copy is not None else 0,
        )
        if exchange.cut is not None and not exchange.sent:
            answer = withdrawn(message)
        self._settle(flow.client_conn.id, exchange, admission, answer, None)
        refused = message.partition(DESTINATION_REFUSED)[2]
        tool = admission.ruleset.tools.get(admission.decision.tool)
        code, detail = "destination-refused" if refused else "upstream-failed", ""
        if exchange.cut is not None:
            code, detail = exchange.cut.code, exchange.cut.detail
        reply = render_failure(
            code=code,
            detail=detail or _failure_detail(message, refused, exchange.sent),
            executed="unknown" if exchange.sent else "no",
            method=exchange.asked.method,
            http_version=exchange.asked.http_version,
            call_id=exchange.call_id,
            call=admission.call,
            dialect=tool.refusal if tool is not None else "",
        )
        if not begun:
            flow.response = response_of(reply)
        elif exchange.cut is not None and flow.response is not None:
            flow.response.trailers = grpc_status_of(reply)

    # -- calls that go on ----------------------------------------------------------------------------------------------

    def goes_on(self, going: GoesOn) -> None:
        """A call that is out still says something, or might: is it permitted as things are, and its client who it was?
        `going.refusal` stands until that is known."""
        exchange = exchange_of(going.flow)
        if exchange is None or exchange.admission is None:
            return
        try:
            self._identify(exchange.credentials)
            refusal = self._gate.goes_on(exchange.admission)
            going.refusal = None if refusal is None else _cut(exchange, refusal.code, refusal.detail)
        except WireError as error:
            going.refusal = _cut(exchange, error.code, error.detail)
        except Exception:
            log.exception("a call was cut off, because of an error of ours")

    # -- WebSockets ------------------------------------------------------------------------------------------------

    async def socket_message(self, said: Said) -> None:
        """A client wants to say something in an open WebSocket: is the call that opened it still permitted, and is
        this, where rules decide message by message? `said.refusal` stands until that is known."""
        exchange = exchange_of(said.flow)
        if exchange is None or exchange.admission is None:
            return
        try:
            self._identify(exchange.credentials)
            refusal = await self._decide_message(exchange, exchange.admission, said.content)
            said.refusal = None if refusal is None else readable(refusal, 300)
        except WireError as error:
            said.refusal = readable(error.detail, 300)
        except Exception:
            log.exception("a message was refused, because of an error of ours")

    async def _decide_message(self, exchange: Exchange, opened: Admission, content: str | bytes) -> str | None:
        refusal = self._gate.still(opened)
        if refusal is not None or not decide.decides_messages(self._gate.ruleset, opened.call):
            return refusal.detail if refusal is not None else None
        call_id = self._new_call_id(self._gate.clock.now_ns())
        message = read_message(opened.call, content)
        admission = await self._gate.admit(message, call_id, Asked(MESSAGE, "HTTP/1.1"), exchange.gone)
        if admission.reply is not None:
            return admission.decision.detail
        self._gate.settle(admission, Answer(status=101, complete=True, sent=True))
        return None

    def socket_end(self, flow: http.HTTPFlow, reason: str) -> None:
        """A WebSocket is over: record what went through it."""
        exchange = exchange_of(flow)
        if exchange is not None and exchange.admission is not None and exchange.socket and not exchange.settled:
            answer = answer_of_socket(exchange.socket, reason)
            self._settle(flow.client_conn.id, exchange, exchange.admission, answer, None)

    def _settle(
        self,
        client_id: str,
        exchange: Exchange,
        admission: Admission,
        answer: Answer,
        stored: StoredAnswer | None,
        held: bool = False,
    ) -> int:
        """Record what became of the call. Returns the status to give the client in place of the answer's, or 0."""
        if admission.reply is not None:
            return 0
        try:
            return self._gate.settle(
                admission,
                answer,
                client_left=exchange.client_left,
                answer_sha256=exchange.copy.sha256 if exchange.copy is not None else "",
                streamed_bytes=exchange.streamed.size_bytes if exchange.streamed is not None else 0,
                streamed_sha256=exchange.streamed.sha256
                if exchange.streamed is not None and exchange.streamed.whole
                else "",
                stored=stored,
                held=held,
            )
        except Exception:
            log.exception("an outcome could not be recorded, because of an error of ours")
            return 0
        finally:
            self._end(client_id, exchange)

    # -- connections -----------------------------------------------------------------------------------------------

    def next_layer(self, data: object) -> None:
        """Inside a tunnel there is TLS or HTTP, and nothing else."""
        next_layer(data)  # type: ignore[arg-type]

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """A client did not accept our certificate: the commonest mistake in setting an agent up, so say it."""
        name = (data.conn.sni if isinstance(data.conn, connection.Client) else "") or ""
        self._own_host.refused(name)
        log.warning("a client refused our certificate for %s: let it trust the CA (see `borderpost env`)", name)

    async def client_disconnected(self, client: connection.Client) -> None:
        """A client left. Wake what waits; and hold its upstream connections open until claimed calls are finished."""
        live = self._live.get(client.id, set())
        for exchange in live:
            exchange.gone.set()
        unfinished = [asyncio.ensure_future(exchange.ended.wait()) for exchange in live if exchange.must_finish]
        if unfinished:
            _, late = await asyncio.wait(unfinished, timeout=UPSTREAM_TIMEOUT_S)
            for waiting in late:
                waiting.cancel()
        self.give_up(client, "its client left")
        self._live.pop(client.id, None)
        self._agents.pop(client.id, None)
        self._credentials.pop(client.id, None)
        self._exact.pop(client.id, None)

    def give_up(self, client: connection.Client, reason: str) -> None:
        """Settle what is still open: nothing more will be heard of it, and nothing of it may leave from now on."""
        for exchange in list(self._live.get(client.id, ())):
            exchange.given_up = True
            exchange.gone.set()
            exchange.refusal = exchange.refusal or _policy_error(False, False)
            if exchange.admission is not None and not exchange.settled:
                answer = withdrawn(reason)
                if exchange.socket is not None:
                    answer = answer_of_socket(exchange.socket, reason)
                elif exchange.sent:
                    answer = Answer(status=0, complete=False, sent=True, abandoned=True, error=reason)
                self._settle(client.id, exchange, exchange.admission, answer, None)

    async def drain(self, timeout_s: float) -> None:
        """Let calls in flight come to their end, for at most `timeout_s`; new ones are refused."""
        self.stopping = True
        waits = [asyncio.ensure_future(one.ended.wait()) for live in self._live.values() for one in live]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout_s)
            for waiting in late:
                waiting.cancel()


@cache
def _policy_error(head: bool, http2: bool) -> Reply:
    """The refusal that stands until a decision has been made. `head`: the request is a HEAD."""
    return render_failure(
        code="policy-error",
        detail="Borderpost could not decide this call, so it was not sent. Nothing was executed. Tell the operator.",
        executed="no",
        method="HEAD" if head else "GET",
        http_version="HTTP/2.0" if http2 else "HTTP/1.1",
        call_id="",
    )


def _too_large(cap_bytes: int) -> str:
    return (
        f"The body is larger than the {cap_bytes} bytes that a rule for it may read, so this call was not sent. "
        "Send less at once, or ask the operator to raise `cap` on this tool."
    )


def _unfinished(asked_by: str) -> str:
    return (
        f"The client waits before it has sent everything, and {asked_by} has to read the whole of it, so this call was "
        "not sent. Send all at once; methods by which both sides talk in turns need rules that do not read the body."
    )


def _failure_detail(message: str, refused: str, sent: bool) -> str:
    """What the agent is told when an exchange failed."""
    if refused:
        return f"Borderpost does not let calls go there: {refused}. Nothing was executed."
    if sent:
        return f"The API failed before its answer was complete: {message}. Whether it acted is unknown: look first."
    return f"The API could not be reached: {message}. Nothing was executed."


def _cut(exchange: Exchange, code: str, detail: str) -> WireError:
    """Why a call that was let out may not go on, told of one that is out or was about to be."""
    return WireError(code, cut_off(detail) if exchange.sent else detail)
