"""JUnit XML for CI systems: one test case per scenario test, a suite per area."""

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from inferencebox.report.model import Item, Result, Run

SKIPPED = ("known gap", "not exercised")
_CONTROL = {number: None for number in range(32) if chr(number) not in "\t\n\r"}


def junit(run: Run) -> str:
    """The XML. Not exercised and known gaps are `skipped`, since JUnit has no words for them."""
    root = ET.Element("testsuites", name="Inference in a Box")
    for area in run.areas():
        results = run.of(area)
        items = [item for result in results for item in result.items]
        suite = ET.SubElement(
            root, "testsuite", name=area, timestamp=datetime.fromtimestamp(run.began, UTC).isoformat()
        )
        _count(suite, items)
        for result in results:
            for item in result.items:
                _case(suite, result, item)
    _count(root, [item for result in run.results.values() for item in result.items])
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, items: list[Item]) -> None:
    verdicts = [item.verdict for item in items]
    element.set("tests", str(len(items)))
    element.set("failures", str(verdicts.count("failed")))
    element.set("errors", str(verdicts.count("error")))
    element.set("skipped", str(sum(verdict in SKIPPED for verdict in verdicts)))
    element.set("time", f"{sum(item.seconds for item in items):.3f}")


def _case(suite: ET.Element, result: Result, item: Item) -> None:
    name = f"{result.promise.id} {item.title}"
    file = item.item.partition("::")[0]
    case = ET.SubElement(suite, "testcase", name=_clean(name), classname=file.removesuffix(".py").replace("/", "."))
    case.set("file", file)
    case.set("time", f"{item.seconds:.3f}")
    if item.verdict in SKIPPED:
        ET.SubElement(case, "skipped", message=_clean(f"{item.verdict}: {item.reason}"))
    elif item.verdict != "passed":
        kind = "failure" if item.verdict == "failed" else "error"
        ET.SubElement(case, kind, message=_clean(item.reason)).text = _clean(item.detail)


def _clean(text: str) -> str:
    """XML 1.0 has no control characters."""
    return text.translate(_CONTROL)
