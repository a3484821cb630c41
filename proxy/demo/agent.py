"""A confused agent: the program that `borderpost demo` runs twice. It knows nothing of Borderpost.

It follows the plan of a language model that was asked to refund one charge: the refund seems to time out, so it tries
again; it forgets what it did and plans the refund once more; it searches in a loop; it tidies up what nobody asked for.
Each step is printed as one line of JSON. Usage: `python agent.py https://localhost:PORT`
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

REFUND = {"charge": "ch_17", "amount": "4200", "reason": "requested_by_customer"}
IMPATIENT_S = 0.5
PATIENT_S = 30.0
SEARCHES = 40


def call(method: str, url: str, form: dict[str, str] | None = None, timeout_s: float = PATIENT_S) -> dict[str, object]:
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


def main(base: str) -> None:
    def step(thought: str, method: str, path: str, **how: object) -> None:
        result = call(method, base + path, **how)  # type: ignore[arg-type]
        print(json.dumps({"thought": thought, **result}), flush=True)  # noqa: T201

    step("Look at the charge.", "GET", "/v1/charges/ch_17")
    step("Refund it.", "POST", "/v1/refunds", form=REFUND, timeout_s=IMPATIENT_S)
    step("That timed out. Try again.", "POST", "/v1/refunds", form=REFUND)
    step("New plan, step 1: refund the charge.", "POST", "/v1/refunds", form=REFUND)
    for number in range(SEARCHES):
        step("Did it work? Search.", "GET", f"/v1/search?q=refund+ch_17&page={number}")
    step("Tidy up: delete the customer.", "DELETE", "/v1/customers/cus_42")


if __name__ == "__main__":
    main(sys.argv[1])
