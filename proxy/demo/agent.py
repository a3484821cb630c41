"""A confused agent: the program that `borderpost demo` runs twice. It knows nothing of Borderpost.

It follows the plan of a language model that was asked to refund one charge: the refund seems to time out, so it tries
again; it forgets what it did and plans the refund once more; it searches in a loop; it tidies up what nobody asked for.
Each step becomes one line of JSON in its transcript. Usage: `python agent.py https://localhost:PORT TRANSCRIPT`
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

REFUND = {"charge": "ch_17", "amount": "4200", "reason": "requested_by_customer"}
IMPATIENT_S = 0.5
SEARCHES = 40


def call(method: str, url: str, form: dict[str, str] | None, timeout_s: float) -> dict[str, object]:
    """Make one request as any Python program would. The result is what a framework would hand to the model."""
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return {"status": answer.status, "text": answer.read().decode()}
    except urllib.error.HTTPError as error:
        with error:
            return {"status": error.code, "text": f"{error.code} {error.reason}"}
    except OSError as error:  # among them a timeout
        return {"status": 0, "text": str(error)}


def main(base: str, transcript: Path) -> None:
    steps = []

    def step(thought: str, method: str, path: str, form: dict[str, str] | None = None, timeout_s: float = 30.0) -> None:
        steps.append({"thought": thought} | call(method, base + path, form, timeout_s))

    step("Look at the charge.", "GET", "/v1/charges/ch_17")
    step("Refund it.", "POST", "/v1/refunds", REFUND, IMPATIENT_S)
    step("That timed out. Try again.", "POST", "/v1/refunds", REFUND)
    step("New plan, step 1: refund the charge.", "POST", "/v1/refunds", REFUND)
    for number in range(SEARCHES):
        step("Did it work? Search.", "GET", f"/v1/search?q=refund+ch_17&page={number}")
    step("Tidy up: delete the customer.", "DELETE", "/v1/customers/cus_42")
    transcript.write_text("".join(json.dumps(done) + "\n" for done in steps))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
