"""The value of an upstream key."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from rules.upstream_key import RETENTION_NS, SentKey, UpstreamKey, first_key
from tests.rules.world import call

WHERE = UpstreamKey("X-Key")


def made(call_id: str) -> str:
    key = first_key(WHERE, call(), call_id, 7)
    assert key is not None
    assert (key.header, key.since_ns) == ("X-Key", 7)
    return key.value


@given(st.text())
def test_it_is_a_uuid_in_its_usual_form(call_id: str) -> None:
    """Some APIs take no other form, and look at the version, too."""
    parsed = uuid.UUID(made(call_id))
    assert str(parsed) == made(call_id)
    assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_each_call_has_another() -> None:
    assert len({made(f"call-{n}") for n in range(1000)}) == 1000


def test_it_stays_the_same_in_every_version_of_the_program() -> None:
    assert made("c_01k9") == "9aafb904-2b62-43b8-908b-f429d5b09f25"


@given(st.integers(0, 2 * RETENTION_NS))
def test_it_is_relied_on_for_less_than_the_api_promises(age_ns: int) -> None:
    assert WHERE.remembers(SentKey("x-key", "v", 5), 5 + age_ns) is (10 * age_ns < 9 * RETENTION_NS)
