"""What we answer in the place of an upstream, and a refusal before it is put into words that one API's clients know."""

from __future__ import annotations

import msgspec

from rules.call import Call
from rules.decision import Plain


class Reply(msgspec.Struct, frozen=True):
    """An answer of our own: `headers` are lower-case (name, value) pairs that encode as Latin-1 (those of refusals as
    ASCII); `reason` is ASCII, and empty for HTTP/2, which has none."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Told(msgspec.Struct, frozen=True):
    """A refusal, whole: every dialect (`proxy.dialects`) says the same with other words.

    `status`: of the plain form. `code`: a key of `rules.codes.CODES`. `message`: everything in a few sentences.
    `problem`: the members of the RFC 9457 form. `headers`: what goes along in every dialect. `final`: no program shall
    repeat the call by itself. `method`: a HEAD gets no body. `call`: as far as it was read; None where none was.
    """

    status: int
    reason: str
    code: str
    message: str
    problem: dict[str, Plain]
    headers: tuple[tuple[str, str], ...]
    final: bool
    method: str
    call_id: str
    call: Call | None


def type_name(code: str) -> str:
    """`policy-denied` as AWS would write it: `PolicyDenied`."""
    return "".join(word.capitalize() for word in code.split("-"))
