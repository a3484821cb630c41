"""GitHub's REST API: https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api.

Octokit reads no other media type than `application/json`. PyGithub repeats every 5xx ten times, and knows no header
that says not to: what is final is 400.
"""

from __future__ import annotations

import msgspec

from proxy.dialects.plain import body
from proxy.reply import Reply, Told
from rules.call import Call


def spoken_in(call: Call) -> bool:
    """Its host, and what asks for its media types: there are GitHub servers with other names."""
    return call.host == "api.github.com" or (call.header("accept") or "").startswith("application/vnd.github")


def write(told: Told) -> Reply:
    """The problem. `errors` is left out: Octokit would add it to the message, which says the same."""
    status = 400 if told.final and told.status >= 500 else told.status
    said = {name: value for name, value in told.problem.items() if name != "errors"}
    return body(told, status, "application/json", msgspec.json.encode({**said, "status": status}) + b"\n")
