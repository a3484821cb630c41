"""The guards that rule files may name. A new guard is one new file here and one line in each table below."""

from __future__ import annotations

from rules.guard import Guard, Implicit
from rules.guards.approve import Approve
from rules.guards.breaker import Breaker, Circuits
from rules.guards.budget import Budget
from rules.guards.cards import Cards
from rules.guards.claims import Claims
from rules.guards.concurrency import Concurrency, Leases
from rules.guards.cooldown import Cooldown, Cooldowns
from rules.guards.dedupe import Dedupe
from rules.guards.endings import Endings
from rules.guards.history import History
from rules.guards.loop import Loop
from rules.guards.loop import Rows as Loops
from rules.guards.require import Require
from rules.guards.spending import Budgets
from rules.guards.throttle import Rows, Throttle
from rules.halts import Halts
from rules.state import Asking, Holding, Table

GUARDS: dict[str, type[Guard]] = {
    "loop": Loop,
    "breaker": Breaker,
    "budget": Budget,
    "dedupe": Dedupe,
    "approve": Approve,
    "concurrency": Concurrency,
    "require": Require,
    "throttle": Throttle,
}
"""Verb in rule files -> the guard."""

IMPLICIT: tuple[Implicit, ...] = (Cooldown(), Endings())
"""Guards that stand beside every rule set, in the order of their stages."""

TABLES: dict[str, type[Table]] = {
    "budget": Budgets,
    "dedupe": Claims,
    "approve": Cards,
    "concurrency": Leases,
    "throttle": Rows,
    "cooldown": Cooldowns,
    "halt": Halts,
    "breaker": Circuits,
    "history": History,
    "loop": Loops,
}
"""Verb in changes -> the table that folds them."""

LIMITING: tuple[type[Guard], ...] = (Approve, Budget, Throttle)
"""The guards that bound how often a call may be made, whatever it says. (Dedupe bounds how often one call may be.)"""

WATCHING: tuple[type[Loop], ...] = (Loop,)
"""The guards that are told what becomes of calls that are not sent (`rules.guard.Watching`)."""

HOLDING: dict[str, type[Holding]] = {
    "budget": Budgets,
    "dedupe": Claims,
    "approve": Cards,
    "concurrency": Leases,
}
"""Verb in changes -> the table, for those of what calls hold until their outcome is known."""

ASKING: dict[str, type[Asking]] = {"approve": Cards}
"""Verb in changes -> the table, for those of questions to people."""
