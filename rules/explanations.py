"""What each code of a problem means: why it is refused, a file that has it, and the same file mended.

The examples are whole files but for `version: 1`, or several with their names; tests load every one of them.
"""

from __future__ import annotations

from textwrap import fill, indent

_EXPLAINED: dict[str, tuple[str, str, str]] = {
    "yaml-syntax": (
        "The file is not YAML. Often a text holds a sign that YAML reads as its own: `: ` or ` #` anywhere, `{`, `[`, "
        "`*`, `&`, `!`, `%`, `@` or a backtick at its start, and inside `{...}` and `[...]` also `{`, `}`, `[`, `]` "
        "and `,`. Quote such a text. A bracket or quote that is never closed may mean that the file is only half "
        "written; such a file is never used.",
        'rules: [{id: no-deletes, match: DELETE https://api.example.com/{item}, deny: "No."}]',
        'rules: [{id: no-deletes, match: "DELETE https://api.example.com/{item}", deny: "No."}]',
    ),
    "yaml-tab": (
        "YAML forbids tabs in indentation, since nobody can see how deep they are. Use spaces.",
        "rules:\n\t- {id: all-files, match: GET https://files.example.com/**, allow: true}",
        "rules:\n  - {id: all-files, match: GET https://files.example.com/**, allow: true}",
    ),
    "yaml-character": (
        "The file holds a character that cannot be seen: a control character, a zero-width space, or a mark that turns "
        "the direction of writing. A rule that does not say what it shows is not used. In a text in double quotes such "
        "characters can be written as escapes.",
        "rules: [{id: files, match: GET https://files.example.com/**\u200b, allow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "yaml-documents": (
        "A rule file is one document. What stands behind a second `---` would be easy to overlook: put it into a file "
        "of its own. Files are merged, and their order does not matter.",
        "rules: []\n---\nrules: []",
        "rules: []",
    ),
    "yaml-tag": (
        "Tags such as `!!str` or `!include` and directives are not part of rule files. Quote what is meant as text; "
        "everything else has the type that it shows.",
        "rules: [{id: !!str 7, match: GET https://files.example.com/**, allow: true}]",
        'rules: [{id: "7", match: GET https://files.example.com/**, allow: true}]',
    ),
    "yaml-alias": (
        "Anchors (`&name`) and aliases (`*name`) are not part of rule files: what a rule says stands in the rule. Name "
        "an operation once under `tools` and refer to it by name. A text that starts with `*` has to be quoted.",
        "rules: [{id: reports, agent: *reporter, match: GET https://files.example.com/**, allow: true}]",
        'rules: [{id: reports, agent: "*reporter", match: GET https://files.example.com/**, allow: true}]',
    ),
    "yaml-number": (
        "Numbers are exact. Infinities, not-a-number and numbers of absurd size cannot be compared in a way that "
        "anybody means. Leave out a bound that is not wanted.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {body.amount: {lte: .inf}}, allow: true, dedupe: 24h}]",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: 24h}]",
    ),
    "yaml-depth": (
        "The file nests lists and mappings deeper than any rule needs. It is more likely broken than meant.",
        f"tests: {'[' * 70}{']' * 70}",
        "tests: []",
    ),
    "duplicate-key": (
        "A key stands twice in one mapping. Most programs would silently use the last; here nobody has to know which.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, allow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "key-not-text": (
        "The keys of a mapping are texts. A number, `true`, or `null` as a key has to be quoted.",
        "tools: {7: GET https://files.example.com/**}",
        'tools: {"7": GET https://files.example.com/**}',
    ),
    "empty-file": (
        "The file says nothing but perhaps its version. That happens when a file is read while it is being written, so "
        "it is not taken for a rule set without rules: write `rules: []` if that is what is meant.",
        "# rules will follow",
        "rules: []",
    ),
    "version": (
        "Every rule file says which version of the language it is written in, so that a later program never reads"
        " an old file in a new way. There is one version so far.",
        "version: 2\nrules: []",
        "version: 1\nrules: []",
    ),
    "unknown-key": (
        "A mapping holds a word that is not known there. Nothing is skipped: a guard that is misspelt would guard"
        " nothing.",
        "rules: [{id: files, match: GET https://files.example.com/**, alow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "missing-key": (
        "A word is missing that has to be there: the `id` of a rule, the `match` of a tool, the `request` of a match.",
        "rules: [{match: GET https://files.example.com/**, allow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "wrong-type": (
        "A value has another type than its key takes. Numbers and `true` are not taken for text: quote what is "
        "meant as text.",
        "rules: [{id: 7, match: GET https://files.example.com/**, allow: true}]",
        'rules: [{id: "7", match: GET https://files.example.com/**, allow: true}]',
    ),
    "empty": (
        "A list or text is empty. It could mean nothing or everything, so it has to be filled or removed.",
        "rules: [{id: files, agent: [], match: GET https://files.example.com/**, allow: true}]",
        "rules: [{id: files, agent: [clerk], match: GET https://files.example.com/**, allow: true}]",
    ),
    "choice": (
        "The value is not one of the words that may stand there.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, mode: watch}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, mode: monitor}]",
    ),
    "name": (
        "The id of a rule and the name of a tool stand in refusals, headers and the ledger, so they consist of "
        "letters, digits, `.`, `_` and `-`, start with a letter or digit, and have at most 80 characters.",
        "rules: [{id: all files, match: GET https://files.example.com/**, allow: true}]",
        "rules: [{id: all-files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "size": (
        "A size is a whole number and a unit: B, kB, MB, GB count in thousands, KiB, MiB, GiB in 1024s. A cap is "
        "at most 256MiB.",
        "tools: {upload: {match: PUT https://files.example.com/**, cap: 32}}",
        "tools: {upload: {match: PUT https://files.example.com/**, cap: 32MiB}}",
    ),
    "params": (
        "`params` is all that the calls of a tool may say: a parameter that it does not name is refused. So it has to "
        "say where each stands and what it may be; what would let something through in silence is an error: a bound "
        "without a type, a key that says nothing about its type, an object that names no members. Bare names are in "
        "the body if the tool has one, else in the query; `path.x`, `query.x` and `body.x` say it themselves, and "
        "`$body` is the body as a whole. Where `mcp` or `graphql` tells calls apart, they are the arguments of what is "
        "asked for: `args.x`, or `$args` as a whole.",
        "tools:\n  refund:\n    match: POST https://pay.example.com/refunds\n"
        "    params: {amount: {minimum: 1, maximum: 5000}}\nrules: []",
        "tools:\n  refund:\n    match: POST https://pay.example.com/refunds\n"
        "    params: {amount: {type: integer, minimum: 1, maximum: 5000}}\nrules: []",
    ),
    "upstream-key": (
        "`upstream_key` of a tool names the header by which its API recognises a repetition, such as "
        "`Idempotency-Key`, or maps `header` (or `query`, or `body`: an outermost field) to it and `retention` to how "
        "long the API remembers. `dedupe` sends a key there, so it can not be a place that holds the credential or "
        "that HTTP needs for itself.",
        "tools: {refund: {match: POST https://pay.example.com/refunds, upstream_key: Authorization}}",
        "tools: {refund: {match: POST https://pay.example.com/refunds, upstream_key: Idempotency-Key}}",
    ),
    "unknown-tool": (
        "A rule refers to a tool that no file and no used pack defines, or to a glob that matches none. Such a "
        "rule would never apply, and nobody would notice.",
        "tools: {files.read: GET https://files.example.com/**}\nrules: [{id: files, tool: files.raed, allow: true}]",
        "tools: {files.read: GET https://files.example.com/**}\nrules: [{id: files, tool: files.read, allow: true}]",
    ),
    "unknown-pack": (
        "`use` names a pack that is not shipped. Packs bring the tools of an API; their rules are examples, which"
        " `borderpost init --pack NAME` copies.",
        "use: [strype]\nrules: []",
        "use: [stripe]\nrules: []",
    ),
    "unknown-path-name": (
        "A condition or a key reads `path.NAME`, but no pattern of the rule, or of the tool that it speaks of, "
        "captures `{NAME}`. In a deny that would never refuse, in an allow never allow.",
        'rules: [{id: ours, match: "GET https://git.example.com/{owner}/**", where: {path.user: {eq: acme}}, '
        "allow: true}]",
        'rules: [{id: ours, match: "GET https://git.example.com/{owner}/**", where: {path.owner: {eq: '
        "acme}}, allow: true}]",
    ),
    "duplicate-id": (
        "Two rules have the same id, perhaps in two files. Refusals and the ledger name rules by their ids.",
        "rules:\n"
        "  - {id: files, match: GET https://files.example.com/**, allow: true}\n"
        "  - {id: files, match: PUT https://files.example.com/**, deny: Read only.}",
        "rules:\n"
        "  - {id: files, match: GET https://files.example.com/**, allow: true}\n"
        "  - {id: files-stay, match: PUT https://files.example.com/**, deny: Read only.}",
    ),
    "duplicate-tool": (
        "Two tools have the same name, perhaps in two files or in a pack. A name means one thing.",
        "use: [stripe]\ntools: {stripe.refund.create: POST https://pay.example.com/refunds}",
        "use: [stripe]\ntools: {pay.refund.create: POST https://pay.example.com/refunds}",
    ),
    "equal-tools": (
        "Two tools have the same pattern and the same conditions, and a method in common: nothing decides which "
        "of them names such a call. Keep one, or tell them apart by `where`.",
        "tools:\n  files.read: GET https://files.example.com/**\n  files.get: GET https://files.example.com/**",
        "tools:\n  files.read: GET https://files.example.com/**\n  files.list: GET https://files.example.com/",
    ),
    "conflicting-modes": (
        "Two files say different modes for the whole. The order of files never matters, so neither wins. A rule "
        "may have a `mode` of its own.",
        "# a.yaml\nmode: enforce\n# b.yaml\nmode: monitor",
        "# a.yaml\nmode: enforce\n# b.yaml\nrules: []",
    ),
    "unrecorded": (
        "`unrecorded: allow` lets calls out while nothing can be recorded, for instance because the disk is full. That "
        "is for reads only, which have no effect, and for what no guard counts: claims, quotas and the like are "
        "nothing but what is on record.",
        "tools: {order: POST https://shop.example.com/orders}\n"
        "rules: [{id: order, tool: order, allow: true, unrecorded: allow}]",
        "tools: {order.read: GET https://shop.example.com/orders}\n"
        "rules: [{id: look, tool: order.read, allow: true, unrecorded: allow}]",
    ),
    "conflicting-bounds": (
        "Two files say different bounds for the ledger. There is one ledger, and the order of files never matters, so "
        "neither wins.",
        "# a.yaml\nledger: {keep: 90d}\n# b.yaml\nledger: {keep: 30d, max_size: 2GiB}",
        "# a.yaml\nledger: {keep: 90d}\n# b.yaml\nledger: {max_size: 2GiB}",
    ),
    "no-verb": (
        "The rule says which calls, but not what may happen to them. It needs `allow: true`, `deny`, or a guard.",
        "rules: [{id: files, match: GET https://files.example.com/**}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "conflicting-verbs": (
        "A rule allows and denies the same calls, or denies calls that it also guards. A deny always wins, so the"
        " other verb would never count. Exceptions to a deny stand in its `unless`.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, deny: Not at night.}]",
        "rules:\n"
        "  - {id: files, match: GET https://files.example.com/**, allow: true}\n"
        "  - {id: files-at-night, match: GET https://files.example.com/**, unless: {agent: owl}, deny: Not "
        "at night.}",
    ),
    "tool-and-match": (
        "A rule says both `tool` and `match`. Calls of either, or of both? Name the calls as a tool, or describe "
        "them in the rule.",
        "tools: {files.read: GET https://files.example.com/**}\n"
        "rules: [{id: files, tool: files.read, match: GET https://files.example.com/a, allow: true}]",
        "tools: {files.read: GET https://files.example.com/**}\nrules: [{id: files, tool: files.read, allow: true}]",
    ),
    "allow-without-target": (
        "An allow without `tool` and `match` would let every call out. Denies and guards may cover every call; an"
        " allow says which.",
        "rules: [{id: trusted, agent: janitor, allow: true}]",
        'rules: [{id: trusted, agent: janitor, match: ["https://**", "http://**"], allow: true, throttle: 60/min}]',
    ),
    "pattern": (
        "A pattern is `METHOD[|METHOD] scheme://host[:port]/path`. Without a method it is any; `{name}` is one "
        "segment of the path or one label of the host, `*` a part of a segment, `**` any number of segments or, "
        "as the host, any host.",
        "tools: {files.read: get files.example.com/**}",
        "tools: {files.read: GET https://files.example.com/**}",
    ),
    "field": (
        "A field is `path.NAME`, `query.NAME`, `header.NAME`, `body.NAME` and so on (`body.to[].email` for every "
        "element of a list), or one of agent, run, tool, host, method, credential.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {amount: {lte: 500}}, allow: true, dedupe: 24h}]",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {body.amount: {lte: 500}}, allow: true, dedupe: 24h}]",
    ),
    "where": (
        "A condition maps fields to operators: eq, ne, in, not_in, lt, lte, gt, gte, matches, prefix, glob, "
        "exists, cidr. `all`, `any` and `not` combine conditions.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {body.amount: {max: 500}}, allow: true, dedupe: 24h}]",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {body.amount: {lte: 500}}, allow: true, dedupe: 24h}]",
    ),
    "regex": (
        "`matches` takes a regular expression in the dialect of Rust's regex crate, which always finishes in "
        "linear time. It has no look-around and no backreferences. The whole value has to match.",
        'tools: {files.read: "GET https://files.example.com/{name}"}\n'
        'rules: [{id: files, tool: files.read, where: {path.name: {matches: "(?!secret).*"}}, allow: true}]',
        'tools: {files.read: "GET https://files.example.com/{name}"}\n'
        "rules: [{id: files, tool: files.read, where: {not: {path.name: {prefix: secret}}}, allow: true}]",
    ),
    "during": (
        "`during` names days, hours or both, and always a time zone: 9 o'clock is not the same moment everywhere.",
        "rules: [{id: files, match: GET https://files.example.com/**, during: {days: mon-fri}, allow: true}]",
        'rules: [{id: files, match: GET https://files.example.com/**, during: {days: mon-fri, from: "09:00", '
        'to: "17:30", zone: Europe/Berlin}, allow: true}]',
    ),
    "duration": (
        "A duration is a whole number and a unit: `500ms`, `30s`, `10m`, `24h`, `7d`.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: 24}]",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: 24h}]",
    ),
    "rate": (
        "A rate is a whole number and a unit of time: `5/s`, `10/min`, `100/h`, `1000/d`. `rate: 3` with `per: "
        "8s` says any other time.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: 10}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: 10/min}]",
    ),
    "require": (
        "A `require` names what has to be called first. `same` pairs a field of this call with one of the earlier "
        "call, and `count` is how many earlier calls there have to be.",
        "tools: {look: 'GET https://shop.example.com/orders/{order}', cancel: POST https://shop.example.com/cancel}\n"
        "rules: [{id: cancel, tool: cancel, require: {after: look, same: path.order}}]",
        "tools: {look: 'GET https://shop.example.com/orders/{order}', cancel: POST https://shop.example.com/cancel}\n"
        "rules:\n"
        "  - {id: look, tool: look, allow: true}\n"
        "  - {id: cancel, tool: cancel, allow: true, dedupe: 1h,\n"
        "      require: {after: look, same: {body.order: path.order}}}",
    ),
    "throttle": (
        "A throttle has one limit: `rate`, never more than so many in any stretch of time, or `pace`, evenly spaced.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {by: agent}}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {rate: 10/min, "
        "by: agent}}]",
    ),
    "approve": (
        "`approve: true` has a person decide each of the calls. The long form says what the person reads first "
        "(`title`), how long a call is held (`hold`), and how long a question waits for its answer (`expires`).",
        "rules: [{id: large, match: POST https://pay.example.com/**, allow: true, approve: 1h}]",
        "rules: [{id: large, match: POST https://pay.example.com/**, allow: true, approve: {expires: 1h}}]",
    ),
    "concurrency": (
        "`concurrency` is how many calls may be on their way at the same time: a whole number, at least 1, or a "
        "mapping with such a `max`.",
        "rules: [{id: search, match: GET https://search.example.com/**, allow: true, concurrency: {by: agent}}]",
        "rules: [{id: search, match: GET https://search.example.com/**, allow: true, concurrency: {max: 2, "
        "by: agent}}]",
    ),
    "loop": (
        "`loop` is `true`, or a mapping of limits: `same_error`, `same_result` and `cycle` say how often is too often.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, loop: 3}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, loop: {same_error: 3}}]",
    ),
    "breaker": (
        "`breaker` is `true`, or a mapping of `failures` (how many in a row open it) and `open` (for how long).",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, breaker: 5}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, breaker: {failures: 5}}]",
    ),
    "count": (
        "How often something may happen is a whole number, written without quotes.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, breaker: {failures: 0}}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, breaker: {failures: 5}}]",
    ),
    "conflict": (
        "Two words stand side by side that belong to different limits: `per` belongs to `rate`, `burst` to `pace`.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {rate: 10/min, "
        "burst: 3}}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {pace: 10/min, "
        "burst: 3}}]",
    ),
    "mcp": (
        "`mcp` says which tool of an MCP server is called: its name, a glob in quotes, or `session` for all else of "
        "the protocol. More than one tool is a list of matches.",
        'tools: {clean: {match: {request: "POST https://mcp.example.com/mcp", mcp: [delete_page, delete_space]}}}',
        'tools: {clean: {match: {request: "POST https://mcp.example.com/mcp", mcp: "delete_*"}}}',
    ),
    "graphql": (
        "`graphql` says which operation is asked for: `query`, `mutation` or `subscription`, then the names of its "
        "root fields. The name that a client gives to its operation does not count.",
        'tools: {open: {match: {request: "POST https://api.example.com/graphql", graphql: mutation create-issue}}}',
        'tools: {open: {match: {request: "POST https://api.example.com/graphql", graphql: mutation createIssue}}}',
    ),
    "burst": (
        "`burst` is how many calls may come at once after a rest: a whole number, at least 1.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {pace: 10/min, "
        "burst: 0}}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {pace: 10/min, "
        "burst: 3}}]",
    ),
    "budget": (
        "A budget says what is summed up (`sum`: a field, or count, bytes, tokens or cost), how much of it may be "
        "spent (`max`: a number above 0, in quotes if you like), and in what time (`per`: 24h, or day, week or month).",
        "rules: [{id: refunds, match: POST https://pay.example.com/refunds, allow: true, budget: {sum: body.amount, "
        "max: 50000 cent, per: 24h}}]",
        "rules: [{id: refunds, match: POST https://pay.example.com/refunds, allow: true, budget: {sum: body.amount, "
        "max: 50000, unit: cent, per: 24h}}]",
    ),
    "prices": (
        "What models cost comes from genai-prices, which is installed with `borderpost[prices]`. A model that it does "
        "not know can be given a price, for a million tokens asked and answered.",
        "rules: [{id: chat, match: POST https://llm.example.com/**, allow: true, budget: {sum: cost, max: 20, "
        "per: day, assume: our-own-model}}]",
        "rules: [{id: chat, match: POST https://llm.example.com/**, allow: true, budget: {sum: cost, max: 20, "
        'per: day, assume: {input: "0.10", output: "0.40"}}}]',
    ),
    "repeated": (
        "A field stands twice in a list of fields. Once says the same.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {rate: 10/min, "
        "by: [agent, agent]}}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: {rate: 10/min, "
        "by: [agent, host]}}]",
    ),
    "method": (
        "`methods` of a dedupe lists the methods of HTTP that it covers besides POST.",
        "tools: {rename: PUT https://files.example.com/**}\n"
        "rules: [{id: rename, tool: rename, allow: true, dedupe: {methods: [POT]}}]",
        "tools: {rename: PUT https://files.example.com/**}\n"
        "rules: [{id: rename, tool: rename, allow: true, dedupe: {methods: [PUT]}}]",
    ),
    "until": (
        "`until` of a dedupe names one tool, whose success ends the claim before its window does.",
        "tools: {open: POST https://shop.example.com/open, close: POST https://shop.example.com/close}\n"
        "rules: [{id: open, tool: [open, close], allow: true, dedupe: {until: [close]}}]",
        "tools: {open: POST https://shop.example.com/open, close: POST https://shop.example.com/close}\n"
        "rules: [{id: open, tool: [open, close], allow: true, dedupe: {until: close}}]",
    ),
    "test": (
        "A test is a `name`, a `call` (or `calls`, or `earlier` ones) and what is expected of it. A call has a request,"
        " at most one body, and happens after the calls before it.",
        "tests:\n  - {name: a deletion is refused, call: {request: files.example.com}, expect: deny}",
        "tests:\n  - {name: a deletion is refused, call: {request: DELETE https://files.example.com/a}, expect: deny}",
    ),
    "unknown-rule": (
        "A test expects something of a rule that no file has.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]\n"
        "tests:\n"
        "  - name: files may be read\n"
        "    call: {request: GET https://files.example.com/a}\n"
        "    expect: {decision: allow, rule: file}",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]\n"
        "tests:\n"
        "  - name: files may be read\n"
        "    call: {request: GET https://files.example.com/a}\n"
        "    expect: {decision: allow, rule: files}",
    ),
    "unlimited-writes": (
        "A warning. The rule allows calls that change something, and nothing bounds how often: no throttle, budget, "
        "dedupe or approve in it, nor in a rule that is about these calls without a condition of its own. An agent "
        "that loops repeats them without end; other guards let it, such as one call at a time. A tool whose POSTs "
        "only read can say `effect: read`.",
        "rules: [{id: mail, match: POST https://mail.example.com/send, allow: true}]",
        "rules: [{id: mail, match: POST https://mail.example.com/send, allow: true, dedupe: 24h, throttle: 50/h}]",
    ),
    "broad-allow": (
        "A warning. The rule allows calls that change something, to any host, without a condition and without a "
        "guard. Whatever the agent has read can leave through it.",
        'rules: [{id: web, match: "https://**", allow: true}]',
        'rules: [{id: web, match: "GET|HEAD https://**", allow: true}]',
    ),
    "idle-dedupe": (
        "A warning. A dedupe covers the writes by POST, and those by the methods under `methods`. None of the "
        "rule's calls is one of these, so the dedupe does nothing.",
        "rules: [{id: files, match: PUT https://files.example.com/**, allow: true, dedupe: 1h}]",
        "rules: [{id: files, match: PUT https://files.example.com/**, allow: true, dedupe: {window: 1h, "
        "methods: [PUT]}}]",
    ),
    "keyless-retry": (
        "A warning. `on_unknown: keyed` sends a call whose outcome is unknown again under its first key, but none of "
        "the rule's tools has an `upstream_key`: such a call is refused, as with `on_unknown: block`. Say "
        "`upstream_key` for the tool if its API knows one.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: {window: 24h, on_unknown: keyed}}]",
        "tools: {refund: {match: POST https://pay.example.com/refunds, upstream_key: Idempotency-Key}}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: {window: 24h, on_unknown: keyed}}]",
    ),
    "unmet-require": (
        "A warning. No rule allows the calls that a `require` asks for, or they would have to come before themselves. "
        "So nothing can meet it, and what it guards is always refused.",
        "tools: {look: 'GET https://shop.example.com/orders/{order}', cancel: POST https://shop.example.com/cancel}\n"
        "rules: [{id: cancel, tool: cancel, allow: true, dedupe: 1h, require: look}]",
        "tools: {look: 'GET https://shop.example.com/orders/{order}', cancel: POST https://shop.example.com/cancel}\n"
        "rules:\n"
        "  - {id: look, tool: look, allow: true}\n"
        "  - {id: cancel, tool: cancel, allow: true, dedupe: 1h, require: look}",
    ),
    "approximate-rate": (
        "A warning. Up to 1000 calls a window, each has its own time stamp. Above that the window is counted in "
        "slices: never more is let through than the rule says, but a place becomes free up to 1 % of the window "
        "late.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: 5000/h}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, throttle: 1000/h}]",
    ),
    "chosen-key": (
        "A warning. The throttle or budget counts by a value that the agent chooses freely; with another value it has "
        "another quota. Let a second rule limit the same calls by agent, or by nothing; then nothing is said.",
        "rules: [{id: say, match: POST https://chat.example.com/say, allow: true, throttle: {rate: 10/min, "
        "by: body.channel}}]",
        "rules: [{id: say, match: POST https://chat.example.com/say, allow: true, throttle: {rate: 10/min, "
        "by: agent}}]",
    ),
    "contradiction": (
        "A warning. A condition asks for what no call has: two bounds that no number keeps, a value that is not in "
        "the list beside it, another method than the pattern says. So what it belongs to never applies.",
        "rules: [{id: some, match: GET https://shop.example.com/items, where: {query.page: {gte: 10, lte: 1}}, "
        "allow: true}]",
        "rules: [{id: some, match: GET https://shop.example.com/items, where: {query.page: {gte: 1, lte: 10}}, "
        "allow: true}]",
    ),
    "unreachable-rule": (
        "A warning. No call ever comes to this rule: a deny without exceptions covers all that it speaks of, or it "
        "only limits calls, and no rule allows them.",
        "tools: {pay: POST https://pay.example.com/pay}\nrules: [{id: few-payments, tool: pay, throttle: 10/h}]",
        "tools: {pay: POST https://pay.example.com/pay}\n"
        "rules: [{id: few-payments, tool: pay, allow: true, throttle: 10/h}]",
    ),
    "unnamed-field": (
        "A warning. A condition or a key speaks of a parameter that the `params` of the tool refuse, so no call that "
        "goes out has it. It is most often misspelled in one of the two places.",
        "tools: {pay: {match: POST https://pay.example.com/pay, body: json, params: {total: integer}}}\n"
        "rules: [{id: small, tool: pay, where: {body.totl: {lte: 100}}, allow: true, dedupe: 24h}]",
        "tools: {pay: {match: POST https://pay.example.com/pay, body: json, params: {total: integer}}}\n"
        "rules: [{id: small, tool: pay, where: {body.total: {lte: 100}}, allow: true, dedupe: 24h}]",
    ),
    "optional-amount": (
        "A warning. A budget counts a parameter that calls may leave out. A call that does is refused, since nobody "
        "could say what it comes to; say so in the `params` of the tool, where agents are told sooner.",
        "tools: {refund: {match: POST https://pay.example.com/refunds, body: json, "
        "params: {amount: {type: integer}}}}\n"
        "rules: [{id: refunds, tool: refund, allow: true, budget: {sum: body.amount, max: 500, per: 24h}}]",
        "tools: {refund: {match: POST https://pay.example.com/refunds, body: json, "
        "params: {amount: {type: integer, required: true}}}}\n"
        "rules: [{id: refunds, tool: refund, allow: true, budget: {sum: body.amount, max: 500, per: 24h}}]",
    ),
}


def _paragraph(why: str, wrong: str, right: str) -> str:
    examples = [f"{name}:\n{indent(example, '    ')}" for name, example in (("wrong", wrong), ("right", right))]
    return "\n\n".join([fill(why, 100), *examples])


EXPLANATIONS: dict[str, str] = {code: _paragraph(*parts) for code, parts in _EXPLAINED.items()}
"""Code -> a paragraph with an example of wrong and right, for `rules explain CODE`."""
