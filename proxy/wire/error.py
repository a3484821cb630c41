"""The one exception of `proxy.wire`: what was sent can be read in two ways, or is too large to be decided."""

from __future__ import annotations


class WireError(Exception):
    """`code` is a key of `rules.codes.CODES`; `detail` is one sentence for the agent, without values of headers."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def ambiguous(detail: str) -> WireError:
    """The refusal of a request that two readers could understand differently."""
    return WireError("ambiguous-request", detail)
