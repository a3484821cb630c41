"""The result of `rules test` as JUnit XML, which CI systems read and show."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, ElementTree, SubElement

from proxy.report.tested import Results, missed

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Signs that XML 1.0 cannot hold, however they are written."""


def document(results: Results) -> ElementTree[Element]:
    """One test suite; each test is a case in the class of its file."""
    failed = sum(not result.passed for _, result in results)
    counts = {"tests": f"{len(results)}", "failures": f"{failed}", "errors": "0", "skipped": "0"}
    root = Element("testsuites", {"name": "borderpost rules test", **counts})
    suite = SubElement(root, "testsuite", {"name": "borderpost rules test", **counts})
    for case, result in results:
        place = {"file": _clean(case.mark.file), "line": f"{case.mark.line}"}
        told = SubElement(suite, "testcase", {"classname": _clean(case.mark.file), "name": _clean(case.name), **place})
        if not result.passed:
            lines = [_clean(line) for line in missed(case, result)]
            SubElement(told, "failure", {"message": lines[0]}).text = "\n".join(lines)
    return ElementTree(root)


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
