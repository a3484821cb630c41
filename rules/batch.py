"""Batches: several messages of a protocol in one call. It goes out if and only if each of them would by itself.

There is one answer, one claim, one outcome to a call. So what a guard counts or remembers of a single message cannot be
in a batch: such a message has to be sent by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from rules.decision import Change, Decision, Plain, Violation

SINGLY = "Send the messages of the batch one by one."

MOST = 100
"""More messages than these are not decided at once: it would keep all other calls waiting."""


def too_many() -> Decision:
    """The refusal of a batch of more messages than `MOST`."""
    detail = f"This batch holds more than {MOST} messages. Nothing was executed."
    return Decision(
        "deny",
        "batch-refused",
        detail,
        (),
        "",
        violations=(Violation("", "batch-refused", detail, limit=f"{MOST} messages"),),
        next=("Send fewer messages in each batch.",),
    )


def together(each: Sequence[Decision], in_force: Collection[str]) -> Decision:
    """The decision on a batch, from those on its messages, of which there is one at least.

    `in_force`: the ids of the rules whose guards stop calls.
    """
    facts: dict[str, Plain] = {}
    for n, one in enumerate(each, 1):
        facts |= {f"[{n}].{name}": value for name, value in one.facts.items()}
    for n, one in enumerate(each, 1):
        if one.action != "allow":
            return _refused(one, n, len(each), facts)
    tools = {one.tool for one in each}
    tool = tools.pop() if len(tools) == 1 else ""
    guarding = sorted({change.rule for one in each for change in one.changes if change.rule in in_force})
    if guarding:
        detail = (
            f"This batch holds a call that `{guarding[0]}` limits, and such a call has to be sent by itself. "
            "Nothing was executed."
        )
        violations = tuple(Violation(rule, "batch-refused", detail) for rule in guarding)
        return Decision(
            "deny", "batch-refused", detail, tuple(guarding), tool, violations=violations, next=(SINGLY,), facts=facts
        )
    kept: list[Change] = []
    for one in each:
        kept += [change for change in one.changes if not change.rule and change not in kept]
    return Decision(
        "allow",
        "",
        "",
        tuple(dict.fromkeys(rule for one in each for rule in one.rules)),
        tool,
        would=tuple(dict.fromkeys(violation for one in each for violation in one.would)),
        exact_host=all(one.exact_host for one in each),
        facts=facts,
        changes=tuple(kept),
    )


def _refused(one: Decision, n: int, count: int, facts: dict[str, Plain]) -> Decision:
    """The batch is refused as its `n`th message is. Nobody waits with a batch, and nothing is replayed into one."""
    code = "duplicate" if one.action == "replay" else one.code
    detail = f"Message {n} of {count} in this batch: {one.detail} No message of the batch was sent."
    return msgspec.structs.replace(
        one,
        action="throttle" if one.action == "throttle" else "deny",
        code=code,
        detail=detail,
        violations=one.violations or tuple(Violation(rule, code, one.detail) for rule in one.rules),
        next=(*one.next, SINGLY) if count > 1 else one.next,
        wait=None,
        facts=facts,
        changes=(),
    )
