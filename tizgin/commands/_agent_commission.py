"""Body of ``tizgin agent commission``: shows what will happen, asks, follows the agent's test, writes the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from agent.commissioning.commissioner import PROGRESS
from agent.errors import AgentError
from agent.inbox import hand_in
from config.site import Site
from tizgin.commands._agent_run import read_site
from tizgin.errors import EXIT_OK, EXIT_PROBLEM, EXIT_WRONG_USE, UserError

LOOK_S = 0.2
SILENT_S = 20.0
"""The agent touches its file each second; after this it is believed to have stopped."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the person typed."""

    outputs: tuple[str, ...]
    persons: tuple[str, ...]
    yes: bool = False
    plan_only: bool = False
    live_load: bool = False
    awake: int = 0
    retest: bool = False
    without: tuple[str, ...] = ()
    displays: tuple[str, ...] = ()
    patience_s: int = 3600
    return_s: int = 900
    note: str = ""
    out: Path | None = None
    as_json: bool = False


def commission(config: Path, asked: Asked) -> int:
    """Prove outputs one after the other. Returns the exit code: 0 where every one passed."""
    if not asked.outputs:
        raise UserError("which output? See: tizgin agent outputs", exit_code=EXIT_WRONG_USE)
    if not asked.plan_only and len(set(asked.persons)) < 2:
        raise UserError("name two persons on site: --person A --person B", exit_code=EXIT_WRONG_USE)
    if not (asked.plan_only or asked.yes or interactive()):
        raise UserError("nobody can be asked here; in a script, say --yes", exit_code=EXIT_WRONG_USE)
    visit = Visit(config, asked)
    results: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for output in asked.outputs:
        if output in refused:
            results.append({"output": output, "passed": False, "why": [f"refused: {refused[output]}"], "proof": None})
            continue
        found = visit.one(output)
        results.append(found)
        refused |= {o: why for o, why in found.get("refused", []) if o != output}
    if asked.plan_only:
        if asked.as_json:
            typer.echo(json.dumps(results, ensure_ascii=False))
        return EXIT_OK
    visit.write_protocol(results)
    visit.report(results)
    return EXIT_OK if all(r["passed"] for r in results) else EXIT_PROBLEM


def interactive() -> bool:
    """True where a person can answer."""
    return sys.stdin.isatty()


def give_back(config: Path, persons: tuple[str, ...], *, as_json: bool) -> int:
    """Wake machines that a test left asleep. Returns the exit code."""
    visit = Visit(config, Asked((), persons, as_json=as_json))
    test = visit.hand({"do": "give_back", "persons": list(persons)})
    result = visit.follow(test)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else f"{result.get('woken', 0)} machines woken")
    return EXIT_OK if result["passed"] else EXIT_PROBLEM


class Visit:
    """One call of the command at one site."""

    def __init__(self, config: Path, asked: Asked) -> None:
        self.asked = asked
        self.site: Site = read_site(config)
        self.state_dir = config.resolve().parent / self.site.agent.state_dir
        self.epoch = ""
        self._displays = [_display(text) for text in asked.displays]

    def hand(self, doc: Mapping[str, Any]) -> str:
        """Ask the running agent; its answer.

        Raises:
            UserError: it refuses, or does not answer.
        """
        raw = json.dumps({"ty": "commission", **doc}).encode()
        try:
            good, text = asyncio.run(hand_in(self.state_dir, f"commission-{secrets.token_hex(4)}", raw))
        except (AgentError, OSError) as error:
            raise UserError(str(error)) from None
        if not good:
            raise UserError(text)
        return text

    def one(self, output: str) -> dict[str, Any]:
        """Plan, question, test of one output."""
        asked = self.asked
        wish = {
            "output": output,
            "live_load": asked.live_load,
            "awake": asked.awake,
            "retest": asked.retest,
            "without": list(asked.without),
            "displays": self._displays,
            "patience_s": asked.patience_s,
            "return_s": asked.return_s,
            "note": asked.note,
        }
        plan: dict[str, Any] = json.loads(self.hand({"do": "plan", **wish}))
        if not asked.as_json:
            show_plan(plan)
        if asked.plan_only:
            return plan
        if plan["not_now"] is not None:
            raise UserError(f"{output}: not now: {plan['not_now']}")
        if not asked.yes and typer.prompt(f"This opens {output}. Type its name to begin", default="") != output:
            raise UserError(f"{output}: not confirmed; nothing was moved")
        test = self.hand({"do": "begin", "persons": list(asked.persons), **wish})
        try:
            return self.follow(test)
        except (KeyboardInterrupt, typer.Abort):
            with contextlib.suppress(UserError):  # it may have ended meanwhile
                self._print(self.hand({"do": "stop", "test": test, "who": asked.persons[0]}))
            return self.follow(test)

    def follow(self, test: str) -> dict[str, Any]:
        """Print what happens until the test ends; answer its questions.

        Raises:
            UserError: the agent stopped.
        """
        told, answered = 0, False
        while True:
            doc = self._progress(test)
            for line in doc["lines"][told:]:
                self._print(line)
            told = len(doc["lines"])
            if doc["result"] is not None:
                found: dict[str, Any] = doc["result"]
                return found
            if doc["waiting_for"] == "confirm_close" and not answered:
                answered = self._may_close(test, doc["output"])
            time.sleep(LOOK_S)

    def _may_close(self, test: str, output: str) -> bool:
        if not self.asked.yes and typer.prompt(f"Type {output} to let the agent close it", default="") != output:
            self._print(f"not confirmed: {output} stays open; stop with Ctrl-C, or a person closes it")
            return False
        try:
            self._print(self.hand({"do": "confirm", "test": test, "who": self.asked.persons[0]}))
        except UserError as error:  # somebody closed it, or the test ended, while the question stood
            self._print(str(error))
        return True

    def _progress(self, test: str) -> dict[str, Any]:
        file = self.state_dir / PROGRESS
        began = time.monotonic()
        while True:
            try:
                age_s = time.time() - file.stat().st_mtime
                doc: dict[str, Any] = json.loads(file.read_text())
            except (OSError, ValueError):
                age_s, doc = 0.0, {}
            if doc.get("id") == test and (doc["result"] is not None or age_s < SILENT_S):
                return doc
            if time.monotonic() - began > SILENT_S:
                raise UserError(
                    f"{file}: nothing new of this test; the agent has stopped. Nothing is closed by itself: look at "
                    "the switch. At its next start the agent records the test as failed"
                )
            time.sleep(LOOK_S)

    def _print(self, line: str) -> None:
        typer.echo(line, err=self.asked.as_json)

    def write_protocol(self, results: list[dict[str, Any]]) -> None:
        """The protocol of what passed, for ``tizgin order act commission``.

        Raises:
            UserError: it cannot be written.
        """
        proofs = [r["proof"] for r in results if r["passed"] and r["proof"] is not None]
        if self.asked.out is None or not proofs:
            return
        note = "; ".join(filter(None, [" and ".join(self.asked.persons) + " on site", self.asked.note]))
        doc = {"site": self.site.site.id, "epoch": self._epoch(), "outputs": proofs, "note": note[:480]}
        try:
            self.asked.out.write_text(json.dumps(doc, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.asked.out}: cannot be written: {error.strerror}") from None
        self._print(
            f"{self.asked.out}: {len(proofs)} outputs, to be signed by two persons: tizgin order act commission"
        )

    def _epoch(self) -> str:
        try:
            return str(json.loads((self.state_dir / "status.json").read_text())["epoch"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.state_dir / 'status.json'}: no epoch ({error}); is the agent running?") from None

    def report(self, results: list[dict[str, Any]]) -> None:
        """The table, or JSON."""
        if self.asked.as_json:
            typer.echo(json.dumps(results, ensure_ascii=False))
            return
        table = Table("output", "result", "meter", "fell kW", "expected kW", "open ms", "stayed s", "why")
        for row in results:
            proof = row.get("proof") or {}
            table.add_row(
                row["output"],
                "passed" if row["passed"] else "FAILED",
                str(proof.get("meter", "")),
                _kw(proof.get("seen_w")),
                _kw(proof.get("expected_w")),
                str(proof.get("open_ms", "")),
                str(proof.get("stayed_open_s", "")),
                "; ".join(row["why"]),
            )
        Console().print(table)
        for row in results:
            if row.get("not_back_count"):
                typer.echo(f"{row['output']}: {row['not_back_count']} machines not back: {', '.join(row['not_back'])}")
            if row.get("left_asleep_count"):
                typer.echo(f"{row['output']}: {row['left_asleep_count']} machines left asleep; see --give-back")


def show_plan(plan: Mapping[str, Any]) -> None:
    """What will happen, before anybody is asked."""
    table = Table(f"opening {plan['output']}", "", show_header=True)
    table.add_row("goes dark", ", ".join(plan["dark"]) or "nothing: it is open")
    table.add_row("rated / live", f"{_kw(plan['rated_w'])} kW / {_kw(plan['live_w'])} kW")
    table.add_row("machines", f"{plan['machines']}, {plan['running']} running, {plan['will_sleep']} put to sleep first")
    table.add_row("cool-down / stays open", f"{plan['cooldown_s']} s / at least {plan['guard_s']} s")
    table.add_row("proved by", str(plan["meter"]))
    table.add_row("may move", _points(plan["may_move"]))
    table.add_row("must not move", _points(plan["must_not_move"]))
    if plan["without"]:
        table.add_row("not judged", ", ".join(plan["without"]))
    closing = {"auto": "by the agent, when a person confirms"}.get(plan["close"], "by a person; the agent waits")
    table.add_row("closed again", closing)
    Console().print(table)


def _points(rows: list[list[Any]]) -> str:
    return ", ".join(f"{p} ({_kw(w)} kW)" for p, w in rows) or "none"


def _kw(watts: int | None) -> str:
    return "?" if watts is None else f"{watts / 1000:.2f}"


def _display(text: str) -> list[str | int]:
    """``M1=12345.6`` (kWh) → ``["M1", 12345600]``."""
    point, _, value = text.partition("=")
    try:
        wh = Decimal(value.strip().replace(" ", "").replace(",", ".")) * 1000
    except InvalidOperation:
        wh = Decimal(-1)
    if not point or not wh.is_finite() or not 0 <= wh < 2**53:
        raise UserError(f"--display: saw {text!r}, expected POINT=kWh, e.g. M1=12345.6", exit_code=EXIT_WRONG_USE)
    return [point.strip(), int(wh)]
