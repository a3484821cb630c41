"""The call: finding a header among those that were sent."""

from __future__ import annotations

import pytest

from rules.call import Call

CALL = Call(
    agent="a",
    run="r",
    method="GET",
    scheme="https",
    host="api.example.com",
    port=443,
    path="/",
    segments=("",),
    headers=(("accept", "text/html"), ("x-tag", "one"), ("x-tag", "two"), ("x-empty", "")),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("accept", "text/html", id="the one that was sent"),
        pytest.param("x-tag", "one", id="the first of several"),
        pytest.param("x-empty", "", id="an empty one was sent, too"),
        pytest.param("cookie", None, id="not sent"),
        pytest.param("Accept", None, id="names are asked for in lower case"),
    ],
)
def test_a_header_is_found_by_its_name(name: str, value: str | None) -> None:
    assert CALL.header(name) == value
