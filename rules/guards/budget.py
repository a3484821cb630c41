"""budget: no more than so much in any stretch of time, or in a day, week or month.

`budget: {sum: body.amount, max: 50000, per: 24h, by: agent}`. A call is let out if what is spent, what others hold and
what it comes to itself (`rules.guards.measures`) are no more than `max`; then it holds as much. What becomes of that
is in `rules.guards.spending`, when it counts no more in `rules.guards.periods`.

What is refused holds nothing; what the API refuses costs nothing, nor does a replay.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, cast

import msgspec

from rules import prices
from rules.amounts import ZERO, add, parse_amount, subtract, written
from rules.answers import parse_answer_field
from rules.call import Call
from rules.canonical import frame
from rules.decision import Change
from rules.fields import Field, Value, parse_field
from rules.guard import Pass, Provided, Refuse, Settled, Verdict, View
from rules.guards.claims import end_of
from rules.guards.measures import OUTPUT_TOKENS, Bytes, Cost, Count, Measure, OfAnswer, OfField, Tokens
from rules.guards.periods import UNITS, Calendar, Period, parse_period
from rules.guards.reading import FIELD_LIST_SCHEMA, read_fields, read_map, shown
from rules.guards.spending import Budgets, Row
from rules.state import State
from rules.suggest import listing
from rules.units import parse_size, show_about
from rules.vocabulary import SIZE
from rules.yamltree import Node

LOW = Decimal("0.8")
"""When so much of a budget is spent or held, a person is told."""

WORDS = ("count", "bytes", "tokens", "cost")
"""What `sum` may say besides a field."""

_SHOWN = frozenset({"agent", "run", "tool", "host", "method"})
"""Fields of `by` whose values people may be told of a counter. Others may be private."""

_AMOUNT_SCHEMA = {
    "oneOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": f"^(?:[0-9]+(?:\\.[0-9]+)?|{SIZE})$"},
    ]
}


class Budget(msgspec.Struct, frozen=True, dict=True):
    """The guard: `limit` of what `measure` tells, in each `period`, for each key made of the fields `by`."""

    verb: ClassVar[str] = "budget"
    stage: ClassVar[int] = 8
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "At most so much, of money or of anything else that calls consume, in a stretch of time.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "sum": {
                "description": "What is summed up: a field of the request such as body.amount, one of the answer such "
                "as answer.body.total, or count, bytes, tokens or cost.",
                "type": "string",
            },
            "max": {**_AMOUNT_SCHEMA, "description": 'The most: 50000, "20.00", or a size such as 10GB.'},
            "per": {
                "description": "24h: in any 24 hours. day, week, month: by the calendar of `zone`.",
                "type": "string",
                "pattern": f"^(?:[0-9]+(?:ms|s|m|min|h|d)|{'|'.join(UNITS)})$",
            },
            "zone": {"description": "Whose days, such as Europe/Berlin. Default: UTC.", "type": "string"},
            "by": {**FIELD_LIST_SCHEMA, "description": "A budget for each value of these. Default: one for all."},
            "unit": {"description": "What the amounts are, for people: cent, EUR.", "type": "string"},
            "estimate": {
                **_AMOUNT_SCHEMA,
                "description": "Of what only the answer tells: so much is held until it is there.",
            },
            "output": {
                "description": "Of tokens and cost: so many tokens are held for an answer when its call names no "
                f"maximum. Default: {OUTPUT_TOKENS}.",
                "type": "integer",
                "minimum": 1,
            },
            "assume": {
                "description": "Of cost: the model or the price to count with when the price of a model is not known.",
                "oneOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "input": {**_AMOUNT_SCHEMA, "description": "US dollars for a million tokens asked."},
                            "output": {**_AMOUNT_SCHEMA, "description": "US dollars for a million tokens answered."},
                        },
                        "required": ["input", "output"],
                    },
                ],
            },
        },
        "required": ["sum", "max", "per"],
    }

    rule: str
    measure: Measure
    limit: Decimal
    period: Period
    by: tuple[Field, ...] = ()
    unit: str = ""

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Budget:
        """The mapping; there is no short form."""
        if node.kind != "map":
            mend = "write `{sum: body.amount, max: 50000, per: 24h}`, or `sum: count`, `bytes`, `tokens` or `cost`"
            node.fail("budget", "`budget` needs to know what is summed up, how much of it, and in what time", mend)
        entries = read_map(node, "budget", ("sum", "max", "per", "zone", "by", "unit", "estimate", "output", "assume"))
        for name, example in (("sum", "body.amount"), ("max", "50000"), ("per", "24h")):
            if name not in entries:
                node.fail("missing-key", f"the budget has no `{name}`", f"write `{name}: {example}`")
        measure = _read_measure(entries)
        return cls(
            rule_id,
            measure,
            _read_amount(entries["max"], "max", isinstance(measure, Bytes)),
            parse_period(entries["per"], entries.get("zone")),
            read_fields(entries["by"], "by") if "by" in entries else (),
            _read_unit(entries["unit"], measure) if "unit" in entries else measure.unit,
        )

    def needs_body(self, call: Call, writes: bool) -> bool:
        return self.measure.needs_body(call) or any(field.needs_body for field in self.by)

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        return self.measure.needs_answer

    @cached_property
    def _space(self) -> bytes:
        """What its counters have in common. What was spent stays true when the rule's numbers change."""
        return frame(b"budget", frame(self.rule.encode(), self.measure.text.encode()))

    @cached_property
    def _low_from(self) -> Decimal:
        return self.limit * LOW

    @cached_property
    def _limit(self) -> str:
        return written(self.limit)

    @cached_property
    def _per(self) -> str:
        return str(self.period)

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        amount = self.measure.estimate(view, now_ns)
        if isinstance(amount, Refuse):
            return amount
        said = written(amount)
        view.note(f"budget.{self.rule}", said)
        key = view.counter(self._space, self.by)
        row = state.of(Budgets).rows.get(key)
        since_ns = self.period.since_ns(now_ns)
        used = add(row.spent_since(since_ns), row.held_since(since_ns)) if row is not None else ZERO
        retried = row.holding(view.retry_of, since_ns) if row is not None and view.retry_of else None
        if retried is not None:  # the same effect, under the same key: it is paid once
            used = subtract(used, retried.amount)
            amount = max(amount, retried.amount)
            said = written(amount)
        after = add(used, amount)
        if after > self.limit:
            return self._refuse(amount, used, row, since_ns, now_ns)
        until_ns = self.period.until_ns(now_ns)
        warned_ns = row.warned_ns if row is not None else 0
        who = ", ".join([_who(field, view.read(field), key) for field in self.by])
        notice = ""
        if after >= self._low_from and warned_ns <= now_ns:
            warned_ns = until_ns
            notice = self._low(after, who)
        data: dict[str, Any] = {
            "at_ns": now_ns,
            "call": view.call_id,
            "retry_of": retried.calls[-1] if retried is not None else "",
            "amount": said,
            "since_ns": since_ns,
            "keep_ns": self.period.longest_ns,
            "ends_ns": until_ns if isinstance(self.period, Calendar) else 0,
            "warned_ns": warned_ns,
            "who": who,
            "limit": self._limit,
            "unit": self.unit,
            "per": self._per,
        }
        hold = (Change(self.verb, self.rule, key, "hold", data),)
        return Provided(hold, notice=notice) if notice else Pass(hold)

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        changes: list[Change] = []
        for held in settled.claimed:
            told = cast(dict[str, Any], held.data)
            step = end_of("retry" if told["retry_of"] else "claim", settled.kind, settled.answer)
            data: dict[str, Any] = {"at_ns": now_ns, "call": settled.call_id}
            if step == "done":
                actual = self.measure.actual(settled, Decimal(told["amount"]), told["at_ns"])
                data |= {"amount": written(actual), "spent_ns": now_ns}
            changes.append(Change(self.verb, self.rule, held.key, "spend" if step == "done" else step, data))
        return tuple(changes)

    @property
    def _field(self) -> str:
        """The field of the call that says what it comes to."""
        return self.measure.text if isinstance(self.measure, OfField) else ""

    def _say(self, amount: Decimal) -> str:
        return f"{written(amount)} {self.unit}".rstrip()

    def _low(self, used: Decimal, who: str) -> str:
        of = f" of {who}" if who else ""
        return (
            f"the budget `{self.rule}`{of} runs low: {self._say(used)} of {self._say(self.limit)} "
            f"{self.period} are spent or held"
        )

    def _refuse(self, amount: Decimal, used: Decimal, row: Row | None, since_ns: int, now_ns: int) -> Refuse:
        limit = f"{self._say(self.limit)} {self.period}"
        left = max(subtract(self.limit, used), ZERO)
        if amount > self.limit:
            return Refuse(
                "budget-exhausted",
                f"This call comes to {self._say(amount)}, and the whole budget is {limit}: it can never go out. "
                "Nothing was executed.",
                field=self._field,
                actual=self._say(amount),
                limit=limit,
                next=(f"Do with at most {self._say(self.limit)} at once, or ask a person.",),
            )
        retry_after_ns = 0
        steps = [f"A call that comes to at most {self._say(left)} fits now."] if left > 0 else []
        assert row is not None, "with nothing used, what is within the limit fits"
        freed_ns = row.freed_at_ns(since_ns, subtract(add(used, amount), self.limit))
        if freed_ns:
            retry_after_ns = self.period.until_ns(freed_ns) - now_ns
            steps.append(f"There is room for this call again in {show_about(retry_after_ns)}.")
        else:
            steps.append("Calls that are on their way hold the rest; whether it becomes free is known when they end.")
        return Refuse(
            "budget-exhausted",
            f"The budget is {limit}; {self._say(left)} of it are left, and this call comes to {self._say(amount)}. "
            "Nothing was executed.",
            field=self._field,
            actual=self._say(amount),
            limit=limit,
            retry_after_ns=retry_after_ns,
            next=tuple(steps),
        )


def _who(field: Field, value: Value, key: str) -> str:
    """Whose counter it is, by one field."""
    if field.place in _SHOWN:
        return f"{field} {value if isinstance(value, str) else 'none'}"
    return f"{field} #{key[:8]}"


def _read_measure(entries: dict[str, Node]) -> Measure:
    """What `sum` says, with what belongs to it. Raises `RuleFileError`."""
    node = entries["sum"]
    text = node.scalar
    if not isinstance(text, str):
        node.fail("budget", f"{shown(node)} is nothing to sum up", _SUM_HELP)
    estimate, output, assume = (entries.get(name) for name in ("estimate", "output", "assume"))
    if estimate is not None and not (text == "bytes" or text.startswith("answer.")):
        estimate.fail("conflict", f"`{text}` is estimated from the call itself", "remove `estimate`")
    if output is not None and text not in ("tokens", "cost"):
        output.fail("conflict", "`output` is about tokens and cost", "remove it")
    if assume is not None and text != "cost":
        assume.fail("conflict", "`assume` is about cost", "remove it")
    tokens = OUTPUT_TOKENS if output is None else _read_tokens(output)
    if text == "count":
        return Count()
    if text == "bytes":
        return Bytes(ZERO if estimate is None else _read_amount(estimate, "estimate", True))
    if text == "tokens":
        return Tokens(tokens)
    if text == "cost":
        if not prices.installed():
            node.fail("prices", prices.MISSING, prices.INSTALL)
        return Cost(tokens, None if assume is None else _read_assumed(assume))
    if text.startswith("answer."):
        field = parse_answer_field(text.removeprefix("answer."), node)
        if estimate is None:
            mend = "add `estimate: 1000`: so much is held for each call until its answer is there"
            node.fail("missing-key", f"`{text}` is known only afterwards, and the budget has no `estimate`", mend)
        return OfAnswer(field, _read_amount(estimate, "estimate", False))
    if text.isidentifier() and text not in _SHOWN:
        mend = f"say where it stands: `body.{text}` or `query.{text}`; or write {listing(WORDS)}"
        node.fail("budget", f"`{text}` is nothing to sum up", mend)
    field = parse_field(text, node)
    if field.place not in ("body", "args", "query", "header", "path"):
        node.fail("budget", f"`{text}` is no number", _SUM_HELP)
    return OfField(field)


_SUM_HELP = f"write a field such as `body.amount` or `answer.body.total`, or {listing(WORDS)}"


def _read_amount(node: Node, what: str, sizes: bool) -> Decimal:
    size_bytes = parse_size(node.scalar)
    if size_bytes is not None and sizes:
        return Decimal(size_bytes)
    amount = parse_amount(node.scalar)
    if amount is None:
        mend = "write a number above 0, such as `50000`" + (" or `10GB`" if sizes else ' or `"20.00"`')
        if size_bytes is not None:
            mend = "sizes belong to `sum: bytes`"
        node.fail("budget", f"{shown(node) if node.kind == 'scalar' else f'`{what}`'} is no amount", mend)
    return amount


def _read_tokens(node: Node) -> int:
    if type(node.scalar) is not int or not 0 < node.scalar < 10**9:
        node.fail("budget", f"{shown(node)} is no number of tokens", f"write a whole number such as `{OUTPUT_TOKENS}`")
    return node.scalar


def _read_unit(node: Node, measure: Measure) -> str:
    text = node.scalar
    if not isinstance(text, str) or not 0 < len(text) <= 20 or not text.isprintable():
        node.fail("budget", f"{shown(node)} is no unit", "write a word such as `cent` or `EUR`")
    if isinstance(measure, Cost) and text.upper() != Cost.unit:
        node.fail("budget", f"costs are in {Cost.unit}, not in `{text}`", f"write `unit: {Cost.unit}`, or leave it out")
    return text


def _read_assumed(node: Node) -> str | prices.Price:
    if node.kind == "map":
        entries = read_map(node, "assume", ("input", "output"))
        for name in ("input", "output"):
            if name not in entries:
                node.fail("missing-key", f"`assume` has no `{name}`", 'write `{input: "3.00", output: "15.00"}`')
        return prices.Price(*(_read_amount(entries[name], name, False) for name in ("input", "output")))
    if not isinstance(node.scalar, str) or not prices.known(node.scalar, ""):
        mend = 'write the name of a model, or a price for a million tokens: `{input: "3.00", output: "15.00"}`'
        node.fail("prices", f"what {shown(node)} costs is not known", mend)
    return node.scalar
