"""docs/rules.md: its broken file gets exactly the messages shown below it, and its tables name every word there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rules.load import Source, load
from rules.problems import RuleFileError, render
from rules.vocabulary import EFFECTS, FILE, MODES, RULE, SELECT, TOOL
from rules.where import OPERATORS

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
TEXTS = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_broken_file_gets_these_messages() -> None:
    broken, shown = TEXTS
    with pytest.raises(RuleFileError) as refused:
        load([Source("borderpost.yaml", broken)], {})
    assert "\n\n".join(render(problem, broken) for problem in refused.value.problems) + "\n" == shown


def test_every_word_is_explained() -> None:
    words = {*FILE, *TOOL, *SELECT, *RULE, *OPERATORS, *MODES, *EFFECTS} - {"id"}
    assert sorted(word for word in words if f"`{word}" not in PAGE) == []
