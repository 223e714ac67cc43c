"""A comparison as JUnit XML, which CI systems show beside tests: a test case for every gated endpoint."""

from xml.etree import ElementTree

from enginebench.decide.gate import sentence
from enginebench.decide.model import Verdict, open_problems
from enginebench.report import comparison_words as words
from enginebench.report.comparison import Comparison

_SUITE = "enginebench"


def comparison_junit(comparison: Comparison) -> str:
    """Regressions are failures; what cannot be decided is an error, unless the policy lets it pass: then skipped."""
    suite = ElementTree.Element("testsuite", name=_SUITE)
    for number, problem in enumerate(open_problems(comparison.problems)):
        _case(suite, f"comparable/{problem.what}-{number}", "error", problem.sentence)
    for verdict in comparison.gated:
        _case(suite, verdict.endpoint.key, _status(verdict, comparison), sentence(verdict))
    if not len(suite):
        _case(suite, "gate", "error", "; ".join(comparison.gate.reasons) or "Nothing is gated.")
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    _out(suite, words.headline(comparison))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _status(verdict: Verdict, comparison: Comparison) -> str | None:
    lenient = comparison.gate.policy == "pr"
    return {
        "regression": "failure",
        "invalid": "error",
        "inconclusive": "skipped" if lenient else "error",
    }.get(verdict.outcome)


def _case(suite: ElementTree.Element, name: str, status: str | None, text: str) -> None:
    cell, _, metric = name.rpartition("/")
    case = ElementTree.SubElement(suite, "testcase", classname=f"{_SUITE}.{cell or 'gate'}", name=metric, time="0")
    if status is not None:
        ElementTree.SubElement(case, status, message=_printable(text))
    else:
        _out(case, text)


def _out(parent: ElementTree.Element, text: str) -> None:
    ElementTree.SubElement(parent, "system-out").text = _printable(text)


def _printable(text: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(sign for sign in text if sign.isprintable() or sign == "\n")
