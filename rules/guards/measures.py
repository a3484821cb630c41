"""What budgets count: a figure for each call, estimated before it is sent and told by its end.

    body.amount, query.n    a field of the request: known beforehand
    answer.body.total       a field of the answer: an estimate is held until it is there
    count                   one for each call
    bytes                   of the request and of its answer; taken whole where its head does not say how long it is
    tokens                  of a model: bytes of the question / 3, and as many as the answer may have
    cost                    of these tokens, in US dollars

A figure that cannot be told beforehand refuses the call: what is not measured would not be limited. One that the answer
does not tell is what was estimated.
"""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Protocol

import msgspec

from rules import prices
from rules.amounts import LARGEST, ZERO, add, bounded, read_amount
from rules.answers import read_answer
from rules.call import Body, Call
from rules.canonical import canonical_json
from rules.checks import number
from rules.fields import ABSENT, ConditionError, Field, Many, Value, WireText, read_in_body
from rules.guard import Refuse, Settled, View
from rules.usage import NAME_LENGTH, Usage, usage_of

OUTPUT_TOKENS = 4096
"""What an answer is taken to have when its call names no maximum."""


class Measure(Protocol):
    """How a call is measured. `text`: as rule files say it. `unit`: of its figures, unless the rule names one."""

    unit: ClassVar[str]

    @property
    def text(self) -> str:
        """As rule files say it."""

    def needs_body(self, call: Call) -> bool:
        """Does it read the body of `call`, whose head is known?"""

    @property
    def needs_answer(self) -> bool:
        """Does it read the body of the answer?"""

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        """What the call will come to, as far as can be told; or the refusal of one of which it can not."""

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        """What it came to, having held `held` since `held_ns`."""


class OfField(msgspec.Struct, frozen=True):
    """A number in the request."""

    unit: ClassVar[str] = ""
    needs_answer: ClassVar[bool] = False

    field: Field

    @property
    def text(self) -> str:
        return self.field.text

    def needs_body(self, call: Call) -> bool:
        return self.field.needs_body

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        value = view.read(self.field)
        amount = read_amount(value)
        return _unmeasured(self.field.text, value) if amount is None else amount

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        return held


class OfAnswer(msgspec.Struct, frozen=True):
    """A number in the answer; `estimate` until it is there."""

    unit: ClassVar[str] = ""

    field: Field
    expected: Decimal

    @property
    def text(self) -> str:
        return f"answer.{self.field}"

    @property
    def needs_answer(self) -> bool:
        return self.field.needs_body

    def needs_body(self, call: Call) -> bool:
        return False

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        return self.expected

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        try:
            amount = read_amount(read_answer(settled.answer, self.field))
        except ConditionError:
            return held
        return held if amount is None else amount


class Count(msgspec.Struct, frozen=True):
    """One for each call."""

    unit: ClassVar[str] = "calls"
    text: ClassVar[str] = "count"
    needs_answer: ClassVar[bool] = False

    def needs_body(self, call: Call) -> bool:
        return False

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        return Decimal(1)

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        return held


class Bytes(msgspec.Struct, frozen=True):
    """The bodies of request and answer, as they are on the wire; the answer's is taken for `expected` beforehand."""

    unit: ClassVar[str] = "bytes"
    text: ClassVar[str] = "bytes"
    needs_answer: ClassVar[bool] = False

    expected: Decimal = ZERO

    def needs_body(self, call: Call) -> bool:
        return call.body.kind == "unread" and _said_bytes(call) is None

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        return bounded(add(Decimal(_size_bytes(view.call)), self.expected))

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        return bounded(Decimal(_size_bytes(settled.call) + settled.answer.size_bytes))


class Tokens(msgspec.Struct, frozen=True):
    """Tokens of a question and its answer, which is taken to have `output` where the call names no maximum."""

    unit: ClassVar[str] = "tokens"
    text: ClassVar[str] = "tokens"
    needs_answer: ClassVar[bool] = True

    output: int = OUTPUT_TOKENS

    def needs_body(self, call: Call) -> bool:
        return True

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        usage = _expected(view, self.output)
        return usage if isinstance(usage, Refuse) else bounded(Decimal(usage.input + usage.output))

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        usage = _used(settled)
        return held if usage is None else bounded(Decimal(usage.input + usage.output))


class Cost(msgspec.Struct, frozen=True):
    """What tokens cost. `assume`: the model or the price to count with where nobody knows the price of the model."""

    unit: ClassVar[str] = "USD"
    text: ClassVar[str] = "cost"
    needs_answer: ClassVar[bool] = True

    output: int = OUTPUT_TOKENS
    assume: str | prices.Price | None = None

    def needs_body(self, call: Call) -> bool:
        return True

    def estimate(self, view: View, now_ns: int) -> Decimal | Refuse:
        usage = _expected(view, self.output)
        if isinstance(usage, Refuse):
            return usage
        if usage is NOTHING:
            return ZERO
        cost = self._cost(usage, usage.model, view.call, now_ns)
        if cost is not None:
            return cost
        named = f"`{usage.model}`" if usage.model else "the model, which this call does not name,"
        return Refuse(
            "parameters-invalid",
            f"What {named} costs is not known, and a budget counts it. Nothing was executed.",
            field="body.model",
            actual=usage.model or "missing",
            limit="a model whose price is known",
            next=("Use a model whose price is known, or ask a person to say what it costs.",),
        )

    def actual(self, settled: Settled, held: Decimal, held_ns: int) -> Decimal:
        usage = _used(settled)
        if usage is None or usage is NOTHING:
            return held
        asked = _model_of(settled.call)
        for model in (usage.model, asked):
            cost = prices.cost(usage, model, _url(settled.call), held_ns) if model else None
            if cost is not None:
                return cost
        cost = self._cost(usage, asked, settled.call, held_ns)
        return held if cost is None else cost

    def _cost(self, usage: Usage, model: str, call: Call, at_ns: int) -> Decimal | None:
        """The cost by the price of `model`, else by what the rule assumes; None when nobody knows."""
        cost = prices.cost(usage, model, _url(call), at_ns) if model else None
        if cost is None and isinstance(self.assume, prices.Price):
            return self.assume.of(usage)
        if cost is None and isinstance(self.assume, str):
            return prices.cost(usage, self.assume, "", at_ns)
        return cost


NOTHING = Usage("", 0, 0)
"""The usage of calls without a body: they ask no model."""

_MODEL = Field("body.model", "body", ("model",))
_TIER = Field("body.service_tier", "body", ("service_tier",))
_CHOICES = Field("body.n", "body", ("n",))
_MAXIMA = tuple(
    Field(f"body.{name}", "body", (name,)) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")
)
"""Where a call says how many tokens an answer may have."""


def _expected(view: View, output: int) -> Usage | Refuse:
    """What the call may use at most, as far as can be told. A token has three bytes or more, nearly always."""
    if view.call.body.kind == "none":
        return NOTHING
    maxima: list[int] = []
    for field in (*_MAXIMA, _CHOICES):
        value = view.read(field)
        if value is ABSENT or value is None:
            continue
        found = read_amount(value)
        if found is None or found != int(found) or found >= LARGEST:
            return _unmeasured(field.text, value, "a whole number, at least 0")
        if field is not _CHOICES:
            maxima.append(int(found))
        elif found > 1:
            output, maxima = output * int(found), [each * int(found) for each in maxima]
    size_bytes = _content_bytes(view.call)
    tier = _name(view.read(_TIER))
    return Usage(_name(view.read(_MODEL)), -(-size_bytes // 3), max(maxima, default=output), tier=tier)


def _used(settled: Settled) -> Usage | None:
    """What the call has used, where its answer tells."""
    if settled.call.body.kind == "none":
        return NOTHING
    return settled.answer.usage or usage_of(settled.answer.body)


def _model_of(call: Call) -> str:
    """The model that the call asks; empty where it says none."""
    return _name(read_in_body(call.body, _MODEL.steps))


def _name(value: Value) -> str:
    return str(value) if isinstance(value, str) and len(value) <= NAME_LENGTH else ""


def _url(call: Call) -> str:
    return f"{call.scheme}://{call.host}{call.path[:NAME_LENGTH]}"


def _size_bytes(call: Call) -> int:
    """The size of the body on the wire. Raises `ConditionError` where it is not known."""
    if call.body.kind != "unread":
        return call.body.size_bytes
    said_bytes = _said_bytes(call)
    if said_bytes is None:
        raise ConditionError("the size of the body is not known")
    return said_bytes


def _said_bytes(call: Call) -> int | None:
    """The size of the body as the head says it."""
    length = call.header("content-length") or ""
    return int(length) if length.isdecimal() and length.isascii() and len(length) < 19 else None


def _content_bytes(call: Call) -> int:
    """The size of the body when it is unpacked."""
    body: Body = call.body
    return len(canonical_json(body.json)) if body.json and call.header("content-encoding") else body.size_bytes


def _unmeasured(field: str, value: Value, limit: str = "a number, at least 0") -> Refuse:
    """The refusal of a call that can not be measured, since `value` stands behind `field`."""
    actual = _described(value)
    return Refuse(
        "parameters-invalid",
        f"`{field}` has to be {limit}, since a budget counts it, and it is {actual}. Nothing was executed.",
        field=field,
        actual=actual,
        limit=limit,
        next=(f"Say `{field}` as {limit}.",),
    )


def _described(value: Value) -> str:
    """What is wrong with `value`, in words: what it says may be a secret."""
    if value is ABSENT:
        return "missing"
    if isinstance(value, Many):
        return "several values" if value.ambiguous else "a list with something else in it"
    found = number(value)
    if found is not None:
        return "negative" if found < 0 else "too large or not whole"
    return {bool: "true or false", str: "a text", WireText: "no number", list: "a list"}.get(type(value), "no number")
