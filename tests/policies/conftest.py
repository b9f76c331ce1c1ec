"""A table of policy x check at the end of a run with the regression suite."""

from __future__ import annotations

import re

SUITE = re.compile(r"test_regression\.py::test_(?P<check>\w+)\[(?P<policy>\w+)(?:-(?P<variant>[\w.-]+))?\]")
MARKS = {"passed": "ok", "failed": "FAILED", "error": "FAILED", "skipped": "-"}


def collect(stats: dict) -> dict[str, dict[str, str]]:
    """Check -> policy -> mark, from pytest's reports; the worst of several reports counts."""
    table: dict[str, dict[str, str]] = {}
    for outcome in ("skipped", "passed", "failed", "error"):
        for report in stats.get(outcome, ()):
            found = SUITE.search(report.nodeid)
            if found:
                check = found["check"].replace("_", " ") + (f" ({found['variant']})" if found["variant"] else "")
                table.setdefault(check, {})[found["policy"]] = MARKS[outcome]
    return table


def pytest_terminal_summary(terminalreporter):
    table = collect(terminalreporter.stats)
    if not table:
        return
    policies = sorted({policy for marks in table.values() for policy in marks})
    width = max(map(len, table))
    terminalreporter.section("policies")
    terminalreporter.write_line(" " * width + "".join(f"  {p:>10}" for p in policies))
    for check, marks in sorted(table.items()):
        terminalreporter.write_line(f"{check:<{width}}" + "".join(f"  {marks.get(p, ''):>10}" for p in policies))
