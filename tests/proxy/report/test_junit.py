"""JUnit XML: what can not stand in it is replaced, so that a CI system can always read it."""

from __future__ import annotations

from io import BytesIO
from xml.etree import ElementTree

from proxy.report.junit import document
from rules.cases import Case, CaseResult
from rules.problems import Mark


def test_signs_that_xml_cannot_hold_are_replaced() -> None:
    name = "a \x1b[31m \x00 \ud800 \ufffe b\tc é \U0001f600"
    written = BytesIO()
    case = Case(name, (), Mark("r\x07.yaml", 1, 1))
    document([(case, CaseResult(name, (), ()))]).write(written, encoding="utf-8", xml_declaration=True)
    (told,) = ElementTree.fromstring(written.getvalue().decode()).iter("testcase")
    assert told.get("name") == "a \ufffd[31m \ufffd \ufffd \ufffd b\tc é \U0001f600"
    assert told.get("classname") == "r\ufffd.yaml"
