"""A sealed answer is read with its key, under its call, unchanged, or not at all."""

from __future__ import annotations

import pytest

from proxy.ledger.entries import LedgerError
from proxy.ledger.vault import Vault
from tests.proxy.ledger.samples import VAULT, answer


def test_an_answer_comes_back_byte_for_byte() -> None:
    assert VAULT.open("c_1", VAULT.seal(answer())) == answer()


def test_sealing_tells_nothing() -> None:
    one, other = VAULT.seal(answer()), VAULT.seal(answer())
    assert one != other
    assert VAULT.digest(one) != VAULT.digest(other)
    assert b"re_1" not in one


SEALED = VAULT.seal(answer())
CHANGED = {
    "another call": ("c_2", SEALED),
    "a changed byte": ("c_1", SEALED[:-1] + bytes([SEALED[-1] ^ 1])),
    "a cut": ("c_1", SEALED[:-1]),
    "another key": ("c_1", Vault(b"h" * 32, b"x" * 32).seal(answer())),
    "nothing": ("c_1", b""),
}


@pytest.mark.parametrize(("call_id", "sealed"), CHANGED.values(), ids=list(CHANGED))
def test_what_was_changed_is_refused(call_id: str, sealed: bytes) -> None:
    with pytest.raises(LedgerError, match=f"the stored answer to `{call_id}` was changed, or sealed with another key"):
        VAULT.open(call_id, sealed)
