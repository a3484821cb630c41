"""What each code of a refusal means to those who keep the rules: what happened, and what can be done about it."""

from __future__ import annotations

MEANINGS: dict[str, str] = {
    "no-allow": (
        "No rule allows this call: what no rule allows is refused. The refusal names the allow that came nearest, if "
        "one is about such calls, and what was missing. To permit the call, write an allow for it or widen that one; "
        "to learn what an agent needs before you refuse anything, run it with `--mode monitor`."
    ),
    "policy-denied": (
        "A `deny` applies to this call. A deny wins over every allow; its reason was given to the agent. Exceptions "
        "stand in its `unless`."
    ),
    "halted": (
        "A person has stopped such calls with `borderpost halt`, all of them or those of an agent or a tool. "
        "`borderpost status` shows who, when and why, and `borderpost resume` lets them go on. A halt outlives "
        "restarts, counts in monitor mode too, and holds back even the replay of an answer; calls that were out came "
        "to their end, but for open WebSockets and bodies that were still being sent, which were cut off."
    ),
    "prerequisite-missing": (
        "A `require` asks for something that the same run has to do first, with success, and has not done (any more): "
        "another tool was not called, not for this value, or too long ago. The refusal says what to call. Only what "
        "went through Borderpost in this run counts; `borderpost log list --run ID` shows it."
    ),
    "ambiguous-request": (
        "The request can be read in two ways, or its body is not what the tool says (`body: form`) or cannot be read "
        "although a rule has to look into it. To check one reading while the API takes the other would check nothing, "
        "so it is refused, whatever the rules say. The refusal says what is wrong with it."
    ),
    "body-too-large": (
        "A rule has to read the body before the call may leave, and it is larger than the `cap` of its tool, or too "
        "many large bodies were on their way at once. Raise `cap` (16MiB if left out, at most 256MiB), or limit such "
        "calls by path and headers alone: bodies that no rule reads are passed on at any size."
    ),
    "body-unfinished": (
        "A rule or a tool has to read the whole body of a gRPC call, and its client sends no more of it: it waits for "
        "an answer first, as where both sides talk in turns. Such a method can only be allowed by rules that do not "
        "read bodies: no `params`, no `dedupe` but by a `key` in the path, no `where` on `body`. The refusal names who "
        "asks for the body. Then it is decided at its head, and what both sides say is passed on as it comes."
    ),
    "proxy-auth-required": (
        "The agent named itself with no token, or with one that is unknown, removed or over. `borderpost agent list` "
        "shows who has one and until when, `borderpost agent add NAME --replace` gives a new one. The agent's proxy "
        "URL is `http://NAME:TOKEN@HOST:PORT`."
    ),
    "parameters-invalid": (
        "The tool that names the call has `params`, and the call has a parameter that they do not name, lacks one that "
        "is required, or has one of another form; or its body cannot be read, or is of another kind than the tool "
        "takes. The refusal names each of them with its legal form, so that the agent can mend the call at once. Where "
        "the call was in order, widen `params`; `params_mode: monitor` records what would be refused and refuses "
        "nothing. A `budget` refuses so, too: a call that does not say as a number what it would spend."
    ),
    "batch-refused": (
        "The body is a list of messages (MCP, GraphQL), and a guard limits one of them or more. A call has one answer, "
        "one claim and one outcome, so such a message has to be sent by itself. Most clients can be told not to batch."
    ),
    "key-reused": (
        "The agent sent one idempotency key with two different calls. An API would answer the second as if it were "
        "the first, so it was refused. A client that draws a key for each call does not run into this."
    ),
    "duplicate": (
        "The same call was executed before, within the window of a `dedupe` with `on_duplicate: reject`. With "
        "`on_duplicate: replay` it would have got the first answer again. If the two were different acts, name what "
        "tells them apart under `key`."
    ),
    "duplicate-in-flight": (
        "The same call is on its way and had no answer yet. The second waited up to 10 s for it. It was not sent; "
        "asked again later, it gets the first one's answer."
    ),
    "duplicate-not-replayable": (
        "The same call was executed before, but its answer was not kept: it was larger than 1 MiB, or is gone. The "
        "call was not sent again. The agent is told to go on as if it had succeeded."
    ),
    "outcome-unknown": (
        "The same call was sent before and ended without an answer that tells whether it took effect: a timeout, a "
        "broken connection, 408, or a 5xx other than 503 with `Retry-After`. To send it again could do it twice, so "
        "it is refused until the window of its `dedupe` ends. Where the API knows repetitions by a key, say so with "
        "`upstream_key` at the tool: then it is sent again under the first key. Look at the API itself whether it "
        "happened, and say so with `borderpost resolve ID`; `borderpost log show ID` shows the first attempt."
    ),
    "approval-required": (
        "A rule says `approve`, and nobody has answered for as long as the call was held. The refusal names a ticket: "
        "`borderpost approvals` lists what waits for you, `borderpost approvals allow TICKET` says yes. Then the "
        "identical call passes, once."
    ),
    "approval-refused": (
        "A person said no to this call, with `borderpost approvals refuse`. The agent reads the reason. The answer is "
        "good for as long as the rule's `expires` says; then the call asks anew."
    ),
    "budget-exhausted": (
        "A `budget` had not enough left for what this call comes to. The refusal says how much is left, and in "
        "`resets_at` when there is room again, where that is known. `borderpost status` shows what is spent and held; "
        "what a call of unknown outcome holds is free again after `borderpost resolve CALL --not-executed`."
    ),
    "rate-limited": (
        "A `throttle` had no room. The refusal says which limit it was and when there is room again; `Retry-After` "
        "says it too when that is within 10 s (many SDKs sleep for as long as it says, in silence). `wait: 10s` under "
        "the `throttle` lets calls wait for their turn instead."
    ),
    "concurrency": (
        "A `concurrency` had no place: so many calls were on their way already. Nobody knows when one of them ends, "
        "so the refusal says to come again in 2 s. `wait: 10s` under the `concurrency` lets calls wait instead."
    ),
    "upstream-cooldown": (
        "The API itself asked to slow down (429, or 503 with `Retry-After`), so calls to that host with that "
        "credential are held back until the time that it named, whoever makes them. No rule of yours is behind this."
    ),
    "loop-detected": (
        "A `loop` stopped the call: in this run it was made again and again, and the same came of it each time, be it "
        "an answer, an error, a refusal, or the answer of an earlier call. It is sent once more after a minute; when "
        "the same comes of it again it is stopped for twice as long. Say `polling: true` for tools that are there to "
        "be asked again and again."
    ),
    "circuit-open": (
        "A `breaker` left the API alone: so many calls in a row to that host with that credential ended without an "
        "answer, or with 502, 503 or 504. When its time is over one call goes first, and the others follow when it "
        "gets an answer."
    ),
    "destination-refused": (
        "The address behind the host is one of your own network: loopback, private or link-local. Such an address is "
        "reached only if a rule names the host exactly, without a wildcard; metadata and link-local addresses only if "
        "it names the address itself. Borderpost's own address is never reached."
    ),
    "upgrade-refused": (
        "The agent asked to leave HTTP for a protocol that no rule could look into. WebSocket is the one that can be "
        "allowed, by a pattern that says `wss://`; its handshake has to be that of RFC 6455, over HTTP/1.1."
    ),
    "upstream-failed": (
        "A rule let the call out, but the API could not be reached or broke off its answer: this is no decision. "
        "`executed` says whether it can have taken effect. If the API's certificate was not trusted, give its "
        "authority with `--upstream-ca FILE`."
    ),
    "policy-error": (
        "A rule could not be applied to this call, or Borderpost failed while it decided: an error on the way "
        "refuses. The refusal names the rule, and `borderpost serve` or `run` says more on standard error."
    ),
    "store-error": (
        "The ledger could not be written, and what cannot be recorded does not happen. Everything is refused until "
        "that is mended: is the disk full, or the file on a disk that is gone? It is tried again every second."
    ),
    "shutting-down": "Borderpost was told to stop. Calls on their way may end; new ones are refused.",
}
