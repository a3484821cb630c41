"""What comes out of deciding: the decision, the changes that it makes to the state, and later the outcome."""

from __future__ import annotations

from typing import Literal

import msgspec

from rules.call import UNREAD_BODY, Body
from rules.usage import Usage

type Action = Literal["allow", "deny", "throttle", "replay", "hold"]
type Executed = Literal["no", "yes", "unknown"]
"""Whether the side effect that a refused or replayed call asks for has happened."""

type Plain = bool | int | str | list[Plain] | dict[str, Plain] | None
"""What an entry of the ledger may hold: JSON without floats. Decimals are written as text."""


class Violation(msgspec.Struct, frozen=True, gc=False):
    """One reason for a refusal. `field` is empty where no field is to blame; `actual` and `limit` are for reading."""

    rule: str
    code: str
    detail: str
    field: str = ""
    actual: str = ""
    limit: str = ""


class Limit(msgspec.Struct, frozen=True):
    """A quota for the RateLimit fields of a 429: at most `quota` in `window_s`, `reset_s` until it admits again."""

    rule: str
    quota: int
    window_s: int
    remaining: int
    reset_s: int


class Change(msgspec.Struct, frozen=True, gc=False):
    """One step of the state's fold: guard `guard` of rule `rule` does `op` to its entry `key`, with `data`.

    `key` is a digest (hex), never a plain value. Changes are written to the ledger and applied in its order.
    """

    guard: str
    rule: str
    key: str
    op: str
    data: dict[str, Plain]


class Waiting(msgspec.Struct, frozen=True):
    """The call may wait until one of the entries `on` of the state changes, and is decided again then.

    Each entry is (guard, key), as in the changes that are made to it. The call waits for this for `at_most_ns`, and
    only while fewer than `crowd` calls wait for the same entry (0: any number).
    """

    on: tuple[tuple[str, str], ...]
    at_most_ns: int
    crowd: int = 0


type Setting = tuple[Literal["header", "query", "body"], str, str]
"""A place, a name there, and its value."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer to one call.

    `code` is empty for an allow, `replay` for a replay, else a key of `rules.codes.CODES`.
    `rules`: the ids that determined it: the denying ones, the guards that refused, else the ones that allowed.
    `tool`: the name of the tool that names the call, or empty.
    `would`: what rules in monitor mode would have refused; nothing was stopped for these.
    `send_at_ns`: for an allow, the earliest moment to send it (a throttle may delay); else 0.
    `replay_of`: for a replay, for a refusal that speaks about an earlier call, and for an allow that tries one again
        whose outcome is unknown, that call's id; else empty.
    `wait`: set when the call may wait for something and be decided again. The decision is then what it gets when it
        waits no longer; its changes take effect as soon as it begins to wait.
    `retry_after_ns`: when trying again can succeed, from now; 0 where it can not, or is not known.
    `ticket`: the id of the question to a person that a hold, or a person's refusal, is about; else empty.
    `exact_host`: a rule that allows this call, or its tool, names the host literally: private addresses are permitted.
    `unrecorded`: for an allow of a call that only reads, and that nothing counts: it may go out though it can not be
        recorded.
    `send`: (place, name, value) of what to set on the request, in place of whatever the client sent there: headers,
        parameters of the query, members of a JSON object or form.
    `facts`: every field that an applicable tool, rule or guard read, by its name, before redaction; and as `send.NAME`
        every header that is set.
    `notices`: what a person has to be told, such as that a budget runs low.
    """

    action: Action
    code: str
    detail: str
    rules: tuple[str, ...]
    tool: str
    executed: Executed = "no"
    violations: tuple[Violation, ...] = ()
    would: tuple[Violation, ...] = ()
    next: tuple[str, ...] = ()
    send_at_ns: int = 0
    replay_of: str = ""
    wait: Waiting | None = None
    retry_after_ns: int = 0
    limits: tuple[Limit, ...] = ()
    ticket: str = ""
    exact_host: bool = False
    send: tuple[Setting, ...] = ()
    facts: dict[str, Plain] = {}
    changes: tuple[Change, ...] = ()
    unrecorded: bool = False
    notices: tuple[str, ...] = ()


type OutcomeKind = Literal["done", "not_executed", "unknown"]
type Expected = Literal["", "met", "failed", "unclear"]
"""Whether an answer is what its tool expects of a success; empty where it expects nothing."""


class Answer(msgspec.Struct, frozen=True):
    """What the upstream said, or why it did not. The input to `rules.decide.settle`.

    `status`: 0 when no complete header arrived. `complete`: the whole answer arrived.
    `sent`: at least one byte of the request may have left. `replayed`: the upstream marked it `Idempotent-Replayed`.
    `withdrawn`: we held it back ourselves (its client left while it waited, or a rule changed): nothing was consumed.
    `abandoned`: we broke it off ourselves after it was sent, so that no answer came says nothing of the upstream.
    `stored`: the answer is kept and can be replayed. `error`: one line, empty when there was none.
    `headers`: the answer's (lower-case name, value) pairs, and `trailers` those that followed its body (HTTP/2), or
    stood at its end (gRPC-Web). `only_trailers`: its body holds nothing else.
    `size_bytes`: of its body, as it came.
    `messages`: how many went through a WebSocket, of the client and of the server.
    `digest`: keyed hash (hex) of its body, equal for equal bodies, whatever ids JSON-RPC gave them; empty when it did
    not arrive whole.
    `body`: decoded where `rules.needs` asked for it and it is not too large, else of kind `unread`.
    `usage`: what a model has used, where the answer was a stream of events and told it.
    """

    status: int
    complete: bool
    sent: bool
    withdrawn: bool = False
    abandoned: bool = False
    stored: bool = False
    replayed: bool = False
    error: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    only_trailers: bool = False
    size_bytes: int = 0
    messages: tuple[int, int] = (0, 0)
    digest: str = ""
    body: Body = UNREAD_BODY
    usage: Usage | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of a call that was sent, and the changes that follow from it.

    `told`: earlier calls whose outcome was unknown; now it is known to be the same.
    `expected`: whether the answer is a success by its tool's `expect`, and `reason`: why not, in one line.
    `show_as`: the status to give the client in place of the upstream's, or 0.
    """

    kind: OutcomeKind
    changes: tuple[Change, ...] = ()
    told: tuple[str, ...] = ()
    expected: Expected = ""
    reason: str = ""
    show_as: int = 0
