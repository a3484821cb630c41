"""What an entry of the ledger is. Frozen values; `store` redacts and writes them, `query` reads them back."""

from __future__ import annotations

from typing import Literal

import msgspec

from rules.decision import Action, Change, Executed, Expected, OutcomeKind, Plain, Violation
from rules.state import CLOCK, SetBack


class LedgerError(Exception):
    """The ledger cannot be used, or could not be written. The text is one line for the operator."""


HELD_BACK = "held back: "
"""How the error of a call begins that was let out and then held back by ourselves."""


class BootEntry(msgspec.Struct, frozen=True):
    """A proxy began to own this ledger. `boot` is its id; `versions`: ours, mitmproxy's, the validator's, tzdata's,
    and that of the prices, if there are any.

    `isolated`: the command that it was started for had no other way out.
    """

    at_ns: int
    boot: str
    command: str
    pid: int
    listen: str
    versions: dict[str, str]
    isolated: bool = False


class RulesetEntry(msgspec.Struct, frozen=True):
    """A rule set came into force (`problem` empty), or a reload failed and the last one stays (`problem` says why).

    `max_bytes`, `keep_ns`: the bounds of the ledger; 0 for none.
    """

    at_ns: int
    digest: str
    files: tuple[str, ...]
    rules: int
    tools: int
    mode: str
    problem: str = ""
    max_bytes: int = 0
    keep_ns: int = 0


class DecisionEntry(msgspec.Struct, frozen=True):
    """One call and what was decided. `id` is the call's id.

    `path` is without the query; `status` is what we answered, 0 when the call was sent.
    `facts` holds every field that was read. `changes` are folded into the state.
    `ruleset` is the digest. `waited_ns`: how long the call waited for a twin or its turn before this decision.
    `count`: above 1, this entry stands for that many equal refusals; 0, the call is held and will be decided again.
    """

    at_ns: int
    id: str
    run: str
    agent: str
    tool: str
    method: str
    scheme: str
    host: str
    port: int
    path: str
    action: Action
    code: str
    detail: str
    rules: tuple[str, ...]
    executed: Executed
    status: int
    ruleset: str
    violations: tuple[Violation, ...] = ()
    would: tuple[Violation, ...] = ()
    replay_of: str = ""
    fingerprint: str = ""
    send_at_ns: int = 0
    waited_ns: int = 0
    facts: dict[str, Plain] = {}
    changes: tuple[Change, ...] = ()
    count: int = 1


class OutcomeEntry(msgspec.Struct, frozen=True):
    """What became of the sent call `id`. `status` is the upstream's, 0 when there was none.

    `answer_sha256` (hex) and `answer_bytes` are over the body as the upstream sent it; empty and 0 when unknown. The
    ledger keeps a keyed hash of the former: equal for equal answers, and nobody can try answers until one fits.
    `error` is one line. `client_left`: the client did not wait for this answer. `expected`: whether the answer is a
    success by its tool's `expect`; `shown_as`: the status that the client got in place of a failed answer's, or 0.
    `messages`: how many went through a WebSocket, of the client and of the server. `streamed_bytes`: how much went out
    of a request's body that was not read beforehand; `streamed_sha256` is over it, once it has ended, and kept as the
    answer's is.
    """

    at_ns: int
    id: str
    outcome: OutcomeKind
    status: int
    duration_ns: int
    error: str = ""
    answer_sha256: str = ""
    answer_bytes: int = 0
    client_left: bool = False
    expected: Expected = ""
    shown_as: int = 0
    messages: tuple[int, int] = (0, 0)
    streamed_bytes: int = 0
    streamed_sha256: str = ""
    changes: tuple[Change, ...] = ()


class CommandEntry(msgspec.Struct, frozen=True):
    """A person or the proxy itself did something: `name` such as `shutdown`, with `data`, by OS user `by`."""

    at_ns: int
    name: str
    by: str
    data: dict[str, Plain]
    changes: tuple[Change, ...] = ()

    @property
    def set_back(self) -> SetBack | None:
        """By this entry the clock was set back; None for every other one."""
        return next((SetBack.told(change) for change in self.changes if change.guard == CLOCK), None)


class CheckpointEntry(msgspec.Struct, frozen=True):
    """The entries before this one were sealed: `note` names the last of them by its hash, signed.

    `key` is the public key that checks it. The writer fills in both, since it alone knows the hash.
    """

    at_ns: int
    note: str = ""
    key: str = ""


class PruneEntry(msgspec.Struct, frozen=True):
    """The payloads of all entries up to and with `through` were given up, by OS user `by`: older than `before_ns`.

    The rules give up, too (`by` says so): what is older than `keep`, or for `max_size`; then `before_ns` is 0.
    """

    at_ns: int
    through: int
    before_ns: int
    by: str


class StoredAnswer(msgspec.Struct, frozen=True):
    """An upstream answer kept for replay, byte for byte as it came: headers in order, body still content-encoded.

    `headers` are (name, value) byte pairs as sent. `until_ns`: gone after this. Encrypted at rest.
    """

    id: str
    until_ns: int
    status: int
    reason: bytes
    http_version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


type Entry = BootEntry | RulesetEntry | DecisionEntry | OutcomeEntry | CommandEntry | CheckpointEntry | PruneEntry
type Kind = Literal["boot", "ruleset", "decision", "outcome", "command", "checkpoint", "prune"]
