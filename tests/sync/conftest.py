"""After the tests: what the state machine consisted of."""

from __future__ import annotations

import sys

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    machine = sys.modules.get("tests.sync.machine")
    if machine and machine.TOTAL.runs:
        terminalreporter.write_line(f"state machine: {machine.TOTAL}")
