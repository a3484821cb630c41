"""One decision being made, stage by stage.

The stages, always in this order; the first that refuses is the one whose violations are told:

    0  what can be read in two ways, or not at all, is refused
    1  no person has stopped it (a halt), and no explicit deny applies
    2  at least one allow applies
    3  the call keeps to the parameters of the tool that names it
    4  what has to come before it was done (require)
    5  the upstream did not ask for a pause (cooldown)
    6  the call is no duplicate (dedupe)
    7  a person has approved it (approve)
    8  every quota has room (throttle, concurrency, budget); then all are consumed at once, with the claims

A rule in monitor mode stops nothing and allows nothing: what it would have refused is in `Decision.would`. When the
whole rule set is in monitor mode the same is true of everything behind stage 0 but halts. Rules are looked at in the
order of their ids, so the order of files never matters, and of several violations the first is always the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from rules.applies import Ambiguous, Naming, Reading, Target, writes
from rules.call import Call
from rules.decision import Action, Change, Decision, Violation, Waiting
from rules.fields import ConditionError
from rules.guard import Guard, Implicit, Pass, Provided, Refuse, Replay, Verdict, Wait
from rules.guards import IMPLICIT, WATCHING
from rules.guards.history import History, past_of
from rules.halts import Halts
from rules.index import Hit
from rules.needs import body_asked_by, naming, reads_body
from rules.params import check as parameters
from rules.params.telling import told as told_of_parameters
from rules.remember import let_out
from rules.ruleset import RuleSet
from rules.state import State
from rules.upstream_key import SentKey
from rules.view import CallView
from rules.where import Miss
from rules.wording import BY_PERSON, BY_POLICY, NEXT, NOTHING, REPLAYED, could_not, delayed, missed_by, sentence


class Turn(msgspec.Struct, frozen=True, gc=False):
    """The turn of a guard: of which rule (empty: of none), whether that is only watched, and whose view of the call
    it has: that of the `nth` rule that applies. Guards of no rule see nothing that is peculiar to one: they have the
    first.
    """

    rule: str
    guard: Guard | Implicit
    monitored: bool
    nth: int


type Stages = tuple[tuple[Turn, ...], ...]
type Asked = tuple[Turn, Verdict]
"""A guard, and what it said."""


class Deciding:
    """One decision being made. `final`: it is a refusal that global monitor mode does not turn into an allow."""

    def __init__(self, ruleset: RuleSet, state: State, call: Call, call_id: str, now_ns: int) -> None:
        self.ruleset = ruleset
        self.state = state
        self.call = call
        self.call_id = call_id
        self.now_ns = now_ns
        self.reading = Reading(ruleset, call, now_ns, past_of(state, call.run, call_id))
        self.rules = self.reading.candidates()
        self.naming = Naming(None, writes(None, call))
        self.allowing: list[str] = []
        self.targets: dict[str, Target] = {}
        self.would: list[Violation] = []
        self.final = False

    def decide(self) -> Decision:
        decision = self.permission() or self._parameters() or self._guarded()
        if self.ruleset.mode == "monitor" and not self.final:
            decision = _watched(decision, self.now_ns, self._exact_host())
        if decision.action not in ("allow", "replay"):
            return decision
        changes = let_out(self.reading, self.state, self.call_id)
        if changes:
            decision = msgspec.structs.replace(decision, changes=decision.changes + changes)
        return msgspec.structs.replace(decision, unrecorded=True) if self._may_go_unrecorded(decision) else decision

    def _may_go_unrecorded(self, decision: Decision) -> bool:
        """Whether a rule lets the call out though it cannot be recorded: it only reads, and nothing counts it. That it
        was made may be forgotten then, unless a rule asks for that."""
        if not self.ruleset.unrecorded or self.naming.writes or decision.action != "allow":
            return False
        return not self.ruleset.unrecorded.isdisjoint(self.allowing) and all(
            change.guard == History.verb and self.ruleset.asked_after.isdisjoint(cast(Any, change.data["tools"]))
            for change in decision.changes
        )

    # -- stages 0 to 2

    def permission(self) -> Decision | None:
        """The refusal of stages 0 to 2, or None when the call is permitted as far as they go."""
        unreadable = self._unreadable()
        if unreadable:
            self.final = True
            return self._ambiguous(unreadable)
        halted = self._halted()
        if halted is not None:
            self.final = True
            return halted
        denies: list[Violation] = []
        errors: list[Violation] = []
        for rule in self.rules:
            try:
                if rule.deny is not None and self.reading.applies(rule, "deny"):
                    denies.append(Violation(rule.id, "policy-denied", rule.deny))
                if rule.allow and rule.mode == "enforce":
                    target = self.reading.applies(rule, "allow")
                    if target:
                        self.allowing.append(rule.id)
                        self.targets[rule.id] = target
            except ConditionError as error:
                errors.append(Violation(rule.id, "policy-error", could_not(error)))
        refusing = self._enforced(denies) + self._enforced(errors) if denies or errors else ()
        if refusing:
            first = refusing[0]
            detail = f"{sentence(first.detail)} {BY_POLICY}" if first.code == "policy-denied" else first.detail
            return self._refusal("deny", refusing, detail)
        return None if self.allowing else self._no_allow()

    def _ambiguous(self, why: str) -> Decision:
        detail = f"The request is ambiguous: {why}. {NOTHING}"
        return self._refusal("deny", [Violation("", "ambiguous-request", detail)], detail)

    def _halted(self) -> Decision | None:
        """The refusal of a call that a person has stopped, by whatever tool that matches it."""
        halts = self.state.of(Halts)
        if not halts.halts:
            return None
        halt = halts.stopping(self.call.agent, {hit.target.name for hit in self.reading.tool_hits if self._may_be(hit)})
        if halt is None:
            return None
        detail = f"{sentence(halt.reason)} {BY_PERSON}"
        return self._refusal("deny", [Violation("", "halted", detail)], detail)

    def _may_be(self, hit: Hit) -> bool:
        """Can the call be of the tool that was hit? On doubt it can."""
        try:
            return self.reading.fits(hit, "deny")
        except ConditionError:
            return True

    def _enforced(self, violations: Iterable[Violation]) -> list[Violation]:
        """The violations of rules in force; those of rules in monitor mode are noted."""
        kept: list[Violation] = []
        for each in violations:
            (kept if self.ruleset.by_id[each.rule].mode == "enforce" else self.would).append(each)
        return kept

    def _unreadable(self) -> str:
        """Stage 0: why the call cannot be read in one way only, or empty."""
        body = self.call.body
        if body.kind == "undecodable" and self._reads_body():
            return f"its body cannot be read ({body.problem})"
        if body.kind == "unread" and self._reads_body():
            return "its body was not read, and the rules have come to need it"
        try:
            self.naming = self.reading.name()
        except (Ambiguous, ConditionError) as error:
            return str(error)
        declared = self.naming.tool.body if self.naming.tool else None
        if declared is not None and body.kind not in (declared, "none", "unread") and self._reads_body():
            kind = "no" if declared == "none" else f"a {declared}"
            return f"`{self.naming.name}` takes {kind} body, and this one is {body.media_type or body.kind}"
        if body.kind in ("text", "binary") and body.size_bytes:
            return self._unfielded()
        return ""

    def _reads_body(self) -> bool:
        rules = [rule for rule in self.rules if self.reading.known(rule.select)]
        may_write = any(writes(tool, self.call) for tool in naming(self.reading))  # as when it was asked for its needs
        return bool(body_asked_by(self.ruleset, self.reading, rules, may_write))

    def _unfielded(self) -> str:
        """A deny that looks into the body cannot be passed by a body that has no fields to look at."""
        for rule in self.rules:
            where = rule.select.where
            if rule.deny is None or rule.mode == "monitor" or where is None or not reads_body(where):
                continue
            if self.reading.present(rule.select, "deny") and self.reading.targets(rule.select, rule.id, "deny"):
                field = next(field for field in where.fields if field.needs_body)
                shown = self.call.body.media_type or "neither JSON nor a form"
                return f"rule `{rule.id}` has to read `{field}`, and the body is {shown}"
        return ""

    def _no_allow(self) -> Decision:
        """Stage 2: nothing allows the call. Tell which allow came nearest, and what it missed."""
        nearest: tuple[Miss, ...] = ()
        rule_id = ""
        for rule in self.rules:
            try:
                missed = self.reading.misses(rule, "allow") if rule.allow else None
            except ConditionError:  # of a rule in monitor mode; others have refused the call already
                continue
            if missed is not None and rule.mode == "monitor":
                missed += (Miss("", "", "it is in monitor mode, where an allow grants nothing"),)
            if missed and (not nearest or _distance(missed) < _distance(nearest)):
                nearest, rule_id = missed, rule.id
        if not nearest:
            detail = f"No rule allows this call. {BY_POLICY}"
            refusal = self._refusal("deny", [Violation("", "no-allow", detail)], detail, ())
            return msgspec.structs.replace(refusal, next=NEXT["policy-denied"])  # a change would not help
        violations = [
            Violation(rule_id, "no-allow", missed_by(miss), miss.field, miss.actual, miss.limit) for miss in nearest
        ]
        told = " and ".join(each.detail for each in violations)
        detail = f"No rule allows this call: the nearest, `{rule_id}`, {told}. {BY_POLICY}"
        return self._refusal("deny", violations, detail, ())

    # -- stage 3

    def _parameters(self) -> Decision | None:
        """The refusal of a call that does not keep to the parameters of its tool, or None."""
        contract = self.naming.tool.params if self.naming.tool else None
        if contract is None:
            return None
        if self.call.body.kind == "unread" and not contract.watched:
            self.final = True
            return self._ambiguous("its body was not read, and its tool has come to have parameters")
        checked = parameters.check(contract, self.call, self.naming.bindings)
        for name, value in checked.facts.items():
            self.reading.facts.setdefault(name, value)
        if not checked.violations:
            return None
        if contract.watched:
            self.would += checked.violations
            return None
        return self._refusal("deny", checked.violations, told_of_parameters(self.naming.name, checked.violations))

    # -- stages 4 to 9

    def _guarded(self) -> Decision:
        """The guards of every rule that applies, stage by stage."""
        views, stages, errors = self._applying()
        if errors:
            return self._refusal("deny", errors, errors[0].detail)
        said: list[list[Verdict]] = []
        changes: list[Change] = []
        terms: list[Provided] = []
        send_at_ns = 0
        for stage in stages:
            verdicts = [turn.guard.check(views[turn.nth], self.state, self.now_ns) for turn in stage]
            known = len(changes)
            for verdict in verdicts:
                if type(verdict) is not Pass:
                    break
                changes += verdict.changes
            else:  # nobody minds, and that is all: the usual case
                said.append(verdicts)
                continue
            del changes[known:]
            verdicts, at_ns = self._agreed(stage, views, verdicts)
            said.append(verdicts)
            send_at_ns = max(send_at_ns, at_ns)
            stopping: list[Asked] = []
            for turn, verdict in zip(stage, verdicts, strict=True):
                if isinstance(verdict, Pass):
                    changes += verdict.changes
                if turn.monitored:
                    self.would += _watched_verdict(turn.rule, verdict, self.now_ns)
                elif isinstance(verdict, Provided):
                    terms.append(verdict)
                    if verdict.retried is not None:
                        for view in views:
                            view.retry_of = verdict.retry_of
                elif not isinstance(verdict, Pass):
                    stopping.append((turn, verdict))
            if stopping:
                return self._watched_by(stages, said, views, self._stopped(stopping))
        send = {setting[:2]: setting for term in terms for setting in term.send}
        for where, name, value in send.values():
            self.reading.facts[f"send.{name}" if where == "header" else f"send.{where}.{name}"] = value
        return Decision(
            "allow",
            "",
            "",
            tuple(self.allowing),
            self.naming.name,
            would=tuple(self.would),
            send_at_ns=send_at_ns,
            replay_of=next((term.retry_of for term in terms if term.retry_of), ""),
            exact_host=self._exact_host(),
            send=tuple(send.values()),
            facts=self.reading.facts,
            changes=tuple(changes),
            notices=tuple([term.notice for term in terms if term.notice]),
        )

    def _agreed(
        self, stage: Sequence[Turn], views: Sequence[CallView], verdicts: list[Verdict]
    ) -> tuple[list[Verdict], int]:
        """What the guards of one stage, which have said `verdicts`, say in the end, and the time to send the call at, 0
        for now. When one delays the call, the others are asked about that later time; when one lets it retry an earlier
        call, the others are asked about the key of that one.
        """
        send_at_ns = 0
        retried: SentKey | None = None
        while True:
            latest_ns, key = 0, retried
            for turn, verdict in zip(stage, verdicts, strict=True):
                if isinstance(verdict, Provided) and not turn.monitored:
                    latest_ns = max(latest_ns, verdict.send_at_ns)
                    key = key or verdict.retried
            settled = latest_ns <= send_at_ns and key is retried
            if not settled:
                send_at_ns, retried = max(send_at_ns, latest_ns), key
            for view in views:
                view.not_before_ns, view.retried = (0, None) if settled else (send_at_ns, retried)
            if settled:
                return verdicts, send_at_ns
            verdicts = [turn.guard.check(views[turn.nth], self.state, self.now_ns) for turn in stage]

    def _watched_by(
        self, stages: Stages, said: Sequence[Sequence[Verdict]], views: Sequence[CallView], decision: Decision
    ) -> Decision:
        """`decision`, which does not send the call, with what follows from it for the guards that let it pass: of those
        that were asked, stage by stage, and have `said` so."""
        if decision.wait is not None:
            return decision
        changes = decision.changes
        for stage, verdicts in zip(stages, said, strict=False):
            for turn, verdict in zip(stage, verdicts, strict=True):
                if isinstance(turn.guard, WATCHING) and isinstance(verdict, Pass):
                    changes += turn.guard.watch(views[turn.nth], self.state, decision, self.now_ns)
        return msgspec.structs.replace(decision, changes=changes) if changes else decision

    def _exact_host(self) -> bool:
        """Does a target that allows the call, or the tool that names it, name the host literally?"""
        named = self.naming.pattern
        return (named is not None and named.exact_host) or any(target.exact_host for target in self.targets.values())

    def _applying(self) -> tuple[list[CallView], Stages, list[Violation]]:
        """How the guards of the rules that apply see the call, their stages; and the rules of which it cannot be told
        whether they do."""
        own: list[str] = []
        watched = self.ruleset.mode == "monitor"
        views: list[CallView] = []
        applying: list[str] = []
        errors: list[Violation] = []
        for rule in self.rules:
            if not rule.guards:
                continue
            try:
                # an allow is read more strictly than a guard: where it applies, the guards beside it do
                target = self.targets.get(rule.id) or self.reading.applies(rule, "guard")
            except ConditionError as error:
                errors += self._enforced([Violation(rule.id, "policy-error", could_not(error))])
                continue
            if target:
                monitored = watched or rule.mode == "monitor"
                views.append(CallView(self.reading, self.naming, self.call_id, target.bindings, monitored, own))
                applying.append(rule.id)
        if not views:
            views.append(CallView(self.reading, self.naming, self.call_id, {}, watched, own))
        return views, _stages(self.ruleset, tuple(applying)), errors

    def _stopped(self, stopping: Sequence[Asked]) -> Decision:
        """What those guards of one stage that do not let the call pass make of it."""
        refused = [(turn.rule, verdict) for turn, verdict in stopping if isinstance(verdict, Refuse)]
        if refused:
            return self._guards_refuse(refused)
        waits = [(turn, verdict) for turn, verdict in stopping if isinstance(verdict, Wait)]
        if waits:
            return self._guards_wait(waits)
        replays = [(turn.rule, verdict) for turn, verdict in stopping if isinstance(verdict, Replay)]
        return Decision(
            "replay",
            "replay",
            REPLAYED,
            tuple(rule for rule, _ in replays),
            self.naming.name,
            executed="yes",
            would=tuple(self.would),
            replay_of=replays[0][1].of,
            facts=self.reading.facts,
        )

    def _guards_wait(self, waits: list[tuple[Turn, Wait]]) -> Decision:
        """What the call gets when it waits no longer, and what it may wait for until then: all of it has to come."""
        refusal = self._guards_refuse([(turn.rule, wait.refuse) for turn, wait in waits])
        return msgspec.structs.replace(
            refusal,
            wait=Waiting(
                on=tuple((turn.guard.verb, wait.key) for turn, wait in waits),
                at_most_ns=min(wait.at_most_ns for _, wait in waits),
                crowd=min((wait.crowd for _, wait in waits if wait.crowd), default=0),
            ),
            changes=tuple(change for _, wait in waits for change in wait.changes),
        )

    def _guards_refuse(self, refused: list[tuple[str, Refuse]]) -> Decision:
        """The refusal by guards of one stage. First what may have been executed: nobody shall be told it was not. Then
        what time alone does not mend: nobody shall wait in vain.
        """
        refused = sorted(refused, key=lambda each: (_EXECUTED_FIRST.index(each[1].executed), each[1].code in ACTIONS))
        violations = [
            Violation(rule_id, each.code, each.detail, each.field, each.actual, each.limit) for rule_id, each in refused
        ]
        first = refused[0][1]
        after_ns = [each.retry_after_ns for _, each in refused]
        refusal = self._refusal(ACTIONS.get(first.code, "deny"), violations, first.detail)
        return msgspec.structs.replace(
            refusal,
            executed=first.executed,
            next=first.next,
            replay_of=first.replay_of,
            retry_after_ns=max(after_ns) if all(after_ns) else 0,
            limits=tuple(limit for _, each in refused for limit in each.limits),
            ticket=first.ticket,
        )

    def _refusal(
        self, action: Action, violations: Sequence[Violation], detail: str, rules: tuple[str, ...] | None = None
    ) -> Decision:
        """A refusal with nothing executed. `rules`: who determined it; without, the rules of the violations."""
        determined = tuple(dict.fromkeys(each.rule for each in violations if each.rule)) if rules is None else rules
        code = violations[0].code
        return Decision(
            action,
            code,
            detail,
            determined,
            self.naming.name,
            violations=tuple(violations),
            would=tuple(self.would),
            next=NEXT.get(code, ()),
            facts=self.reading.facts,
        )


ACTIONS: dict[str, Action] = {
    **dict.fromkeys(("rate-limited", "concurrency", "upstream-cooldown", "circuit-open"), "throttle"),
    "approval-required": "hold",
}
"""Refusals that time alone mends, and those that a person may mend; all others deny."""

_EXECUTED_FIRST = ("unknown", "yes", "no")


PLANS = 1_000
"""Of so many sets of rules that apply together the order of their guards is remembered."""


def _stages(ruleset: RuleSet, rules: tuple[str, ...]) -> Stages:
    """The guards of `rules`, and those that no rule names, stage by stage."""
    plan = ruleset.plans.get(rules)
    if plan is None:
        found = [(nth, ruleset.by_id[name]) for nth, name in enumerate(rules)]
        turns = [Turn(rule.id, guard, rule.mode == "monitor", nth) for nth, rule in found for guard in rule.guards]
        turns += [Turn("", guard, False, 0) for guard in IMPLICIT]
        order = sorted({turn.guard.stage for turn in turns})
        plan = tuple(tuple(turn for turn in turns if turn.guard.stage == stage) for stage in order)
        if len(ruleset.plans) < PLANS:
            ruleset.plans[rules] = plan
    return plan


def _distance(misses: Sequence[Miss]) -> tuple[int, int]:
    """How far an allow was from permitting the call; the farthest is one that the caller cannot come nearer to."""
    return sum(not miss.field for miss in misses), len(misses)


def _watched_verdict(rule_id: str, verdict: Verdict, now_ns: int) -> list[Violation]:
    """What a guard would have done to the call, had its rule been in force."""
    if isinstance(verdict, Wait):
        verdict = verdict.refuse
    if isinstance(verdict, Refuse):
        return [Violation(rule_id, verdict.code, verdict.detail, verdict.field, verdict.actual, verdict.limit)]
    if isinstance(verdict, Replay):
        return [Violation(rule_id, "duplicate", REPLAYED)]
    if isinstance(verdict, Provided) and verdict.send_at_ns:
        return [Violation(rule_id, "rate-limited", delayed(verdict.send_at_ns - now_ns))]
    return []


def _watched(decision: Decision, now_ns: int, exact_host: bool) -> Decision:
    """What global monitor mode makes of a decision: the call goes out, and what would have happened is on record."""
    would = decision.violations
    if decision.action == "replay":
        would = tuple(Violation(rule, "duplicate", REPLAYED) for rule in decision.rules)
    elif decision.send_at_ns:
        would = (Violation("", "rate-limited", delayed(decision.send_at_ns - now_ns)),)
    return Decision(
        "allow",
        "",
        "",
        decision.rules if decision.action == "allow" else (),
        decision.tool,
        would=would + decision.would,
        exact_host=exact_host,
        facts=decision.facts,
        changes=decision.changes if decision.action == "allow" else (),
    )
