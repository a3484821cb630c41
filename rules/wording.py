"""What is said of a decision: sentences that a language model and a person both understand.

Each says what happened to the effect: nothing was executed, it was already executed, or nobody knows. What the agent
reads holds no secret, and nothing of what other agents did.
"""

from __future__ import annotations

from rules.fields import ConditionError
from rules.units import seconds_up
from rules.where import Miss

BY_POLICY = "It was decided by policy, and nothing was executed."
BY_PERSON = "A person has stopped such calls until further notice, and nothing was executed."
CUT = "It was cut off while it went on; whether it took effect is not known."
NOTHING = "Nothing was executed."
IN_FLIGHT = "The same call is on its way already and has no answer yet. It was not sent again."
REPLAYED = "The same call was already executed: this is its answer. It was not sent again."
NEXT = {
    "policy-denied": ("Do not repeat this call.", "Do without it, or ask a person."),
    "no-allow": ("Do not repeat this call unchanged.", "Change it so that a rule allows it, or ask a person."),
    "halted": ("Do not repeat this call.", "Stop here: only a person can let such calls go on."),
    "ambiguous-request": ("Send the request in one unambiguous form.",),
    "parameters-invalid": ("Correct these parameters, then send the call again.",),
    "policy-error": ("Ask the person who keeps the rules.",),
}


def sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def cut_off(detail: str) -> str:
    """`detail`, by which a call would be refused, told of one that was out already."""
    for ending in (BY_POLICY, BY_PERSON, NOTHING):
        detail = detail.removesuffix(ending)
    return f"{detail.rstrip()} {CUT}"


def could_not(error: ConditionError) -> str:
    return f"The rules could not be applied: {error}. {NOTHING}"


def missed_by(miss: Miss) -> str:
    if not miss.field:
        return f"does not count: {miss.limit}"
    operator, _, limit = miss.limit.partition(" ")
    if operator == "exists":
        return f"wants `{miss.field}` to be {'there' if limit == 'true' else 'left out'}"
    return f"wants `{miss.field}` to be {_WORDS.get(operator, operator)} {limit}, and it is {miss.actual}"


_WORDS = {
    "eq": "equal to",
    "ne": "other than",
    "in": "one of",
    "not_in": "none of",
    "lt": "less than",
    "lte": "at most",
    "gt": "more than",
    "gte": "at least",
    "matches": "a match of",
    "prefix": "a text that starts with",
    "glob": "like",
    "cidr": "within",
}


def delayed(wait_ns: int) -> str:
    return f"The call would have waited {seconds_up(wait_ns)} s for its turn."
