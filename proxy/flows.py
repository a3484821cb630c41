"""What mitmproxy's flows hold, in our words, and what we put into them."""

from __future__ import annotations

import hashlib

from mitmproxy import http

from proxy.envelope import id_of, unaddressed
from proxy.exchange import ANSWER_CAP_BYTES, Counted, Exchange, Passed
from proxy.gate import SHOWN_REASON
from proxy.ledger.entries import StoredAnswer
from proxy.refusal import Reply
from proxy.wire.coding import CodingError, decompress
from proxy.wire.placing import in_form, in_object, in_query
from rules.call import UNREAD_BODY, BodyKind, Call
from rules.decision import Answer, Setting

type Fields = tuple[tuple[bytes, bytes], ...]
"""Names and values, as they came."""


def answer_of_socket(counted: Counted, reason: str) -> Answer:
    """The end of a WebSocket. It was opened, which is what was asked for; what each message did, nobody can tell."""
    return Answer(
        status=101,
        complete=True,
        sent=True,
        error=reason,
        size_bytes=counted.received_bytes,
        messages=(counted.sent, counted.received),
    )


def has_own_id(exchange: Exchange) -> bool:
    """Will the answer bear the id of this request? Then no other is equal to it byte for byte."""
    return exchange.call is not None and id_of(exchange.call) is not None


def digest_of(exchange: Exchange, copy: Passed, headers: tuple[tuple[str, str], ...]) -> str:
    """Equal for equal answers: over the bytes as they came, or without the id of the request where it can be read."""
    body = copy.body() if has_own_id(exchange) else None
    if body is None:
        return copy.sha256
    coding = ", ".join(value for name, value in headers if name == "content-encoding")
    try:
        plain = decompress(body, coding or None, ANSWER_CAP_BYTES)
    except CodingError:
        return copy.sha256
    return hashlib.sha256(unaddressed(plain)).hexdigest()


def stored_answer(response: http.Response, call_id: str, copy: Passed) -> StoredAnswer | None:
    """The answer as it will be replayed, or None when it was too large to keep."""
    body = copy.body()
    if body is None:
        return None
    return StoredAnswer(
        id=call_id,
        until_ns=0,
        status=response.status_code,
        reason=response.data.reason,
        http_version=response.http_version,
        headers=tuple(response.headers.fields),
        body=body,
    )


def show_failure(response: http.Response, status: int) -> None:
    """Give a failed answer the `status` of an error, and say whose it is. Its body stays as it came."""
    response.headers["proxy-status"] = f"borderpost; received-status={response.status_code}; details=failed"
    for name in ("x-should-retry", "stripe-should-retry"):
        response.headers[name] = "false"
    response.status_code, response.data.reason = status, SHOWN_REASON if not response.is_http2 else b""


def set_on(request: http.Request, kind: BodyKind, settings: tuple[Setting, ...]) -> None:
    """Set what the decision adds to the request, whose body reads as `kind`, in place of what the client sent there."""
    for place, name, value in settings:
        if place == "header":
            request.headers[name.lower() if request.is_http2 else name] = value
        elif place == "query":
            request.data.path = in_query(request.data.path, name, value)
        else:
            raw = request.raw_content or b""
            request.raw_content = raw = (in_form if kind == "form" else in_object)(raw, name, value)
            if "content-length" in request.headers:
                request.headers["content-length"] = str(len(raw))


def values_of(fields: Fields, name: bytes) -> list[str]:
    """The values of every header `name` (lower case)."""
    return [value.decode("latin-1") for sent, value in fields if sent.lower() == name]


def headers_of(response: http.Response) -> tuple[tuple[str, str], ...]:
    return lowered(response.headers.fields)


def lowered(fields: Fields) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in fields)


def response_of(reply: Reply) -> http.Response:
    """A reply of ours as mitmproxy wants it."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    return http.Response(
        b"HTTP/1.1", reply.status, reply.reason.encode("ascii", "replace"), http.Headers(fields), reply.body, None, 0, 0
    )


def stub_of(flow: http.HTTPFlow, agent: str) -> Call:
    """A call that stands in the ledger for a request that could not be read as one."""
    request = flow.request
    path = request.data.path.partition(b"?")[0]
    return Call(
        agent=agent,
        run="",
        method=one_line(request.data.method.decode("latin-1"))[:32],
        scheme=request.data.scheme.decode("latin-1") if request.data.scheme in (b"http", b"https") else "",
        host=one_line(request.data.host)[:255],
        port=request.data.port,
        path=one_line(path.decode("latin-1"))[:1000],
        segments=(),
        body=UNREAD_BODY,
    )


def grpc_status_of(reply: Reply) -> http.Headers | None:
    """How `reply` ends an answer that has begun, where that is one of gRPC: with the status that it has in its head."""
    said = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers if name.startswith("grpc-")]
    return http.Headers(said) if said else None


def one_line(text: str) -> str:
    """`text` on one line, printable ASCII, of bounded length."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:300].rstrip(".")
