"""The alarm catalogue and the alarms the agent really raises are the same set."""

from __future__ import annotations

import ast
from pathlib import Path

from config.alarms import load_alarms

ROOT = Path(__file__).parents[2]


def raised_by_the_agent() -> set[str]:
    """Names handed to ``found.add`` in the agent's reports, without the device they are about."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "agent" / "reports.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
            (value,) = node.args
            part = value.values[0] if isinstance(value, ast.JoinedStr) else value
            assert isinstance(part, ast.Constant)
            names.add(str(part.value).rstrip(":"))
    return names


def test_every_alarm_of_the_agent_is_in_the_catalogue_and_no_other() -> None:
    raised = raised_by_the_agent()
    assert "storage" in raised
    assert raised == set(load_alarms())


def test_every_alarm_says_what_to_do_in_three_languages() -> None:
    for alarm in load_alarms().values():
        for text in (alarm.text, alarm.todo):
            assert len({text.kk, text.ru, text.en}) == 3
            assert any(letter in text.kk for letter in "әғқңөұүһі"), alarm.id
