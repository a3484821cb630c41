"""What the document says and the tools do not: one note each, so that nothing becomes wider or narrower in silence."""

from __future__ import annotations

import msgspec

WIDER = "wider"
"""The contract lets calls through that the document does not describe."""

NARROWER = "narrower"
"""The contract refuses calls that the document describes."""

LEFT_OUT = "left out"
"""The operation has no tool."""


class Note(msgspec.Struct, frozen=True, order=True):
    """`kind`: one of the above; `what`: the same words wherever the same happened; `where`: the field, or empty."""

    kind: str
    what: str
    where: str = ""
