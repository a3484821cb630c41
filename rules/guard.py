"""What a guard is: a verb of a rule that can only narrow. Each guard is one file in `rules/guards/`.

A guard is the frozen, parsed form of one verb in one rule. It reads the call through a `View` (so that what it read is
on record), reads the state, and answers with a verdict; it changes nothing. What it wants changed it says as `Change`s,
and its table folds them (`rules.state.Table`), both live and when the ledger is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from rules.call import Call
from rules.decision import Answer, Change, Decision, Executed, Expected, Limit, OutcomeKind, Setting
from rules.fields import Field, Value
from rules.state import State
from rules.upstream_key import SentKey, UpstreamKey
from rules.yamltree import Node


class View(Protocol):
    """A call as a guard sees it: every read is recorded as a fact.

    `upstream_key`: where the tool that names the call takes the key of a repetition, None where it takes none.
    `polling`: that tool is for asking again and again. `credential`: the field of the secret that it names, or empty.
    `telling`: the headers that may say what is asked for.
    `not_before_ns`: the call cannot be sent earlier than this, because another guard delays it.
    `retried`: the call has to go out under this key, because another guard lets it retry an earlier one.
    `retry_of`: the call whose effect this one has or had, since it goes out under the same key; empty for most.
    `own`: keys of the claims that guards hold, or would hold, for this call.
    """

    call: Call
    call_id: str
    tool: str
    writes: bool
    upstream_key: UpstreamKey | None
    polling: bool
    not_before_ns: int
    retried: SentKey | None
    retry_of: str
    own: list[str]

    @property
    def credential(self) -> str: ...

    @property
    def telling(self) -> tuple[str, ...]: ...

    def read(self, field: Field) -> Value:
        """The value of `field`, or `rules.fields.ABSENT`."""

    def fingerprint(
        self, by: tuple[Field, ...], key: Sequence[tuple[str, Value]] | None = None, ignore: tuple[Field, ...] = ()
    ) -> str:
        """What makes the call the same as another (`rules.fingerprint`), asked by whoever the fields `by` tell."""

    def note(self, name: str, value: str) -> None:
        """Put on record a fact that was computed from the call, such as a fingerprint."""

    def key(self, space: bytes, *parts: bytes) -> str:
        """The key (hex, 32 chars) of the entry that `parts` name. A rule in monitor mode has entries of its own.

        `space`: the parts before them that all entries of one guard have in common, framed.
        """

    def counter(self, space: bytes, by: tuple[Field, ...]) -> str:
        """The key of the entry that the values of the fields `by` name: one for all calls where there are none."""


class Pass(msgspec.Struct, frozen=True, gc=False):
    """The guard has no objection. `changes` take effect only if the whole call goes out."""

    changes: tuple[Change, ...] = ()


class Provided(Pass, frozen=True, gc=False):
    """The guard has no objection, provided that the call goes out like this.

    `send_at_ns`: not before then; 0 is now. `send` is set on it in place of what its client sent there. `retry_of`: the
    call that it tries again; `retried`: under whose key. `notice`: what a person has to be told.
    """

    send_at_ns: int = 0
    send: tuple[Setting, ...] = ()
    retry_of: str = ""
    retried: SentKey | None = None
    notice: str = ""


class Refuse(msgspec.Struct, frozen=True):
    """The guard refuses. `code` is a key of `rules.codes.CODES`; `detail` is one or two plain sentences.

    `ticket`: the id of the question to a person that this is about.
    """

    code: str
    detail: str
    executed: Executed = "no"
    field: str = ""
    actual: str = ""
    limit: str = ""
    replay_of: str = ""
    retry_after_ns: int = 0
    limits: tuple[Limit, ...] = ()
    next: tuple[str, ...] = ()
    ticket: str = ""


class Replay(msgspec.Struct, frozen=True):
    """The same call was answered already: give the stored answer of call `of`."""

    of: str


class Wait(msgspec.Struct, frozen=True):
    """The call may wait until the entry `key` of this guard's table changes, and is decided again then.

    `refuse`: what it gets when it waits no longer: after `at_most_ns`, or when `crowd` calls (0: any number) wait for
    the same. `changes` take effect when it begins to wait, or is refused without having waited.
    """

    key: str
    at_most_ns: int
    refuse: Refuse
    crowd: int = 0
    changes: tuple[Change, ...] = ()


type Verdict = Pass | Refuse | Replay | Wait


class Settled(msgspec.Struct, frozen=True):
    """A call that was sent and has come to its end: what `settle` of the guards is told.

    `claimed` are the changes that this guard made when the call was let out. `tool` is the tool that names the call.
    `expected`: whether the answer is a success, where that tool says what one is.
    """

    call: Call
    call_id: str
    tool: str
    claimed: tuple[Change, ...]
    kind: OutcomeKind
    answer: Answer
    expected: Expected = ""

    @property
    def succeeded(self) -> bool:
        """Was it completed with success?"""
        if self.expected:
            return self.expected == "met"
        return self.kind == "done" and self.answer.complete and 200 <= self.answer.status < 300


class Guard(Protocol):
    """One verb in one rule, parsed. `verb` is its name in rule files, `stage` its place in the order of deciding."""

    verb: ClassVar[str]
    stage: ClassVar[int]
    SCHEMA: ClassVar[dict[str, Any]]

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Guard:
        """The guard that `node` says, short form or long. Raises `RuleFileError` pointing into `node`."""

    def needs_body(self, call: Call, writes: bool) -> bool:
        """Would it read the body of `call`, whose head is known? Tells whether the body has to be buffered."""

    def claims(self, method: str, writes: bool) -> bool:
        """Could it hold a claim for such a call? Then the exchange is finished even when the client leaves."""

    def needs_answer(self, messages: bool) -> bool:
        """Does it read the body of the answer? Tells whether that has to be kept and decoded for `settle`.

        `messages`: the call may be a message of a protocol, and the answer another.
        """

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        """May this call go out, as far as this guard is concerned? Pure: reads `state`, changes nothing."""

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        """What follows from the end of a call that this guard let out. Called with the rule set that let it out."""


class Watching(Guard, Protocol):
    """A guard that wants to know what comes of every call that it has let pass, and not only of those that are sent."""

    def watch(self, view: View, state: State, decision: Decision, now_ns: int) -> tuple[Change, ...]:
        """What follows from `decision`, by which a call was refused or answered again, and will not wait."""


class Implicit(Protocol):
    """A guard that no rule names: it watches every call. Its changes carry no rule."""

    verb: ClassVar[str]
    stage: ClassVar[int]

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        """As for a guard."""

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        """As for a guard, but called at the end of every call."""
