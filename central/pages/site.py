"""``/site/{id}``: one site in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from central.api.views import site_summary
from central.dispatch import OrderView
from central.pages import chart, parts
from central.pages.board import Board
from central.pages.call import DRILL, is_drill, missing
from central.pages.curtailable import CurtailableCard
from central.pages.format import DASH, age, clock, energy_kwh, kilowatt, localised, slot
from central.pages.story import Notices, Step, notices, steps
from central.pages.texts import Texts
from central.pages.wording import order_words, site_words
from central.pages.words import completion_line, word_rows
from wire.messages import Live
from wire.states import ended

REFRESH_S = 1.0
CHART_EVERY = 4
MAX_ROWS = 24
MAX_ITEMS = 60


def step_texts(texts: Texts) -> dict[str, str]:
    """Step of an order → words."""
    return {
        "sent": texts("Sent"),
        "received": texts("Received at the site"),
        "accepted": texts("Accepted"),
        "outputs": texts("First output acted"),
        "readback": texts("Positions read back"),
        "confirmed": texts("Confirmed by the meter"),
        "held": texts("Held"),
        "returning": texts("Load returns"),
        "done": texts("Done"),
        "rejected": texts("Refused by the site"),
        "expired": texts("Expired"),
        "cancelled": texts("Cancelled"),
        "superseded": texts("Replaced by another order"),
        "failed": texts("Not reached; what was shed stays off"),
        "restore_blocked": texts("Return of load is blocked"),
    }


def gap_texts(texts: Texts) -> dict[str, str]:
    """Reason of a gap → words."""
    return {
        "TIMEOUT": texts("meter did not answer"),
        "CRC": texts("damaged answer"),
        "EXCEPTION": texts("meter refused the request"),
        "NO_CONNECTION": texts("no connection to the meter"),
        "NO_VALUE": texts("meter gave no value"),
        "NO_POWER": texts("meter without supply"),
        "DE_ENERGISED": texts("branch switched off"),
        "AGENT_DOWN": texts("agent was down"),
        "SERIAL_CHANGED": texts("another meter answered"),
        "CLOCK": texts("clock not certain"),
        "COUNTER_RESET": texts("counter was reset"),
        "RATIO_CHANGED": texts("transformer ratio changed"),
        "DECODE": texts("answer not understood"),
    }


class SitePage:
    """Builds the page and refreshes it in place."""

    def __init__(self, board: Board, texts: Texts, site: str) -> None:
        self._board, self._texts, self._site = board, texts, site
        self._ticks = 0
        self._shown_steps: object = None
        self._shown_rows: object = None
        self._shown_lists: object = None
        self._called: str | None = None

    def build(self) -> None:
        """The page."""
        texts, settings = self._texts, self._board.service.sites[self._site]
        name = getattr(settings.name, texts.language)
        self._clock = parts.head(texts, name, f"/site/{quote(self._site)}")
        with parts.box("tz-main", tag="main"):
            self._banners(settings.phone)
            with parts.box("tz-hero"):
                with parts.box("tz-column"):
                    self._hero(name)
                    with parts.box("tz-card", "tz-grows"):
                        parts.text(texts("Last hour"), "tz-title")
                        self._chart = ui.echart(chart.options(texts)).style("height:280px; width:100%")
                        self._chart.props(f'role="img" aria-label="{texts("Power and limit of the last hour, kW")}"')
                self._order_card()
            with parts.box("tz-three"):
                self._meters = self._list_card(texts("Meters"), "meters")
                self._switches = self._list_card(texts("Switches"), "switches")
                self._miners_card()
            self._curtailable = CurtailableCard(texts)
            self._table_card()
        ui.timer(REFRESH_S, self.refresh)

    def _banners(self, phone: str | None) -> None:
        texts = self._texts
        self._simulation = parts.banner("tz-sim", "note", "banner-simulation")
        with self._simulation:
            parts.text(texts("SIMULATION — these are no real plants and no real power"))
        self._drill = parts.banner("tz-drill", "note", "banner-drill")
        with self._drill:
            parts.text(DRILL)
        self._phone = phone
        self._undelivered = parts.banner("tz-alarm", "alert", "banner-not-delivered")
        with self._undelivered:
            self._calls = parts.box("tz-calls")
        self._alarms = parts.banner("tz-warn", "status", "banner-alarms")
        with self._alarms:
            self._alarm_text = parts.text("")

    def _hero(self, name: str) -> None:
        texts = self._texts
        with parts.box("tz-card"):
            with parts.box("tz-row", "tz-between"):
                parts.text(name, "tz-name")
                self._presence = parts.text(DASH, "tz-chip", testid="presence")
            self._power = parts.Power(texts, number_id=f"site-{self._site}-kw", age_id="live-age")
            with parts.box("tz-bar").props('aria-hidden="true"'):
                self._fill, self._mark = parts.box("tz-fill"), parts.box("tz-mark")
            with parts.box("tz-facts"):
                self._facts = {}
                for key, words in (
                    ("limit", texts("limit, kW")),
                    ("contracted", texts("contracted, kW")),
                    ("emergency", texts("emergency reservation, kW")),
                    ("mode", texts("agent's mode")),
                    ("heads", texts("evidence heard")),
                ):
                    with parts.box("tz-fact"):
                        self._facts[key] = parts.text(DASH, "tz-value", testid=f"fact-{key}")
                        parts.text(words)

    def _order_card(self) -> None:
        with parts.box("tz-card"):
            with parts.box("tz-row", "tz-between"):
                self._order_name = parts.text(self._texts("No order yet"), "tz-name")
                self._order_state = parts.text(DASH, "tz-chip", testid="order-state")
            self._newest = parts.text("", "tz-chip", testid="order-newest")
            self._newest.set_visibility(False)
            self._report = ui.link(self._texts("Report on paper (PDF)"), "#", new_tab=True)
            self._report.props('data-testid="order-report"').set_visibility(False)
            self._notices = parts.box("tz-notices", testid="order-notices")
            self._steps = parts.box("tz-steps", testid="order-steps").style("margin-top:10px")
            with self._steps:
                parts.text(self._texts("The steps of an order appear here with their times"), "tz-soft")

    @staticmethod
    def _list_card(title: str, testid: str) -> ui.element:
        with parts.box("tz-card"):
            parts.text(title, "tz-title")
            return parts.box("tz-list", testid=testid)

    def _miners_card(self) -> None:
        texts = self._texts
        with parts.box("tz-card"):
            parts.text(texts("Machines"), "tz-title")
            with parts.box("tz-split").props('aria-hidden="true"'):
                self._hashing = parts.box("h", tag="i")
                self._sleeping = parts.box("s", tag="i")
            self._miners = parts.box("tz-list", testid="miners")

    def _table_card(self) -> None:
        texts = self._texts
        with parts.box("tz-card"):
            parts.text(texts("Consumption by interval, from signed records"), "tz-title")
            with parts.box("tz-scroll"), parts.box("tz-table", tag="table"):
                with parts.box(tag="thead"), parts.box(tag="tr"):
                    for words, kind in (
                        (texts("Interval (Kazakhstan time)"), ""),
                        (texts("Metering point"), ""),
                        (texts("kWh"), "r"),
                        (texts("Remark"), ""),
                    ):
                        with parts.box(kind, tag="th"):
                            parts.text(words)
                self._rows = parts.box(tag="tbody")

    async def refresh(self) -> None:
        """Everything anew, in place."""
        service, texts = self._board.service, self._texts
        if self._site not in service.sites:
            return
        now, live = service.now_ms(), service.live.sites[self._site]
        summary = site_summary(service, self._site)
        parts.set_clock(self._clock, texts, now)
        self._power.show(summary)
        parts.presence_chip(self._presence, texts, summary)
        parts.fill_share(self._fill, self._mark, summary)
        self._simulation.set_visibility(summary["simulation"])
        self._alarms.set_visibility(bool(summary["alarms"]))
        self._alarm_text.set_text(" · ".join(parts.alarm_text(a, texts) for a in summary["alarms"][:6]))
        heads_age = None if live.heads_seen_ms is None else now - live.heads_seen_ms
        for key, value in (
            ("limit", localised(kilowatt(summary["limit_w"]), texts)),
            ("contracted", localised(kilowatt(summary["contracted_w"]), texts)),
            ("emergency", localised(kilowatt(summary["emergency_w"]), texts)),
            ("mode", parts.mode_text(summary["mode"], texts)),
            ("heads", age(heads_age, texts)),
        ):
            self._facts[key].set_text(value)
        newest, shedding = await self._board.order(self._site), await self._board.shedding(self._site)
        self._show_order(shedding or newest)
        self._show_newest(newest, shedding)
        self._show_lists(live.live, summary["freshness"])
        self._curtailable.show(summary, live.live)
        self._show_rows(await self._board.intervals(self._site))
        if self._ticks % CHART_EVERY == 0:
            power, limits = await self._board.last_hour(self._site)
            chart.fill(self._chart.options, power, limits, now, self._board.slot_s(self._site))
            self._chart.update()
        self._ticks += 1

    def _show_order(self, view: OrderView | None) -> None:
        texts = self._texts
        self._order_state.set_visibility(view is not None)
        if view is None:
            return
        is_open = view.state is None or not ended(view.state)
        words, kind = parts.phase_texts(texts)[view.phase.value]
        beside = notices(view)
        if beside.trial is not None and kind == "good":
            words, kind = parts.trial_text(beside.trial, texts), "warn"
        self._order_name.set_text(order_words(view, texts))
        self._order_state.set_text(texts("NOT DELIVERED — CALL") if view.not_delivered and is_open else words)
        self._order_state.props(f'data-state="{view.state.value if view.state else "sent"}"')
        parts.set_classes(self._order_state, "tz-chip", "bad" if view.not_delivered and is_open else kind)
        parts.show_report(self._report, view, texts)
        listed = steps(view)
        said = word_rows(view, self._board.service.registers.document, texts)
        aloud = completion_line(view, texts)
        if (listed, beside, said, aloud) == self._shown_steps:
            return
        self._shown_steps = (listed, beside, said, aloud)
        self._notices.clear()
        with self._notices:
            if aloud is not None:
                parts.text(aloud, "tz-aloud", testid="order-completion")
            self._notice_rows(beside)
            for kind, words in said:
                parts.text(words, "tz-word", testid=f"word-{kind}")
        self._steps.clear()
        with self._steps:
            for step in listed:
                self._step(step, beside.trial)

    def _show_newest(self, newest: OrderView | None, shedding: OrderView | None) -> None:
        """A release or another order that came after the one whose steps are shown."""
        texts = self._texts
        views = [view for view in (newest, shedding) if view is not None]
        self._drill.set_visibility(any(is_drill(view) for view in views))
        late = next((view for view in views if missing(view)), None)
        self._undelivered.set_visibility(late is not None)
        if late is not None and late.order.id != self._called:
            self._called = late.order.id
            self._calls.clear()
            name = getattr(self._board.service.sites[self._site].name, texts.language)
            with self._calls:
                parts.call_part(late, name, self._phone, texts)
        other = newest if newest and shedding and newest.order.id != shedding.order.id else None
        self._newest.set_visibility(other is not None)
        if other is None:
            return
        words, kind = parts.phase_texts(texts)[other.phase.value]
        if other.not_delivered:
            words, kind = texts("NOT DELIVERED — CALL"), "bad"
        self._newest.set_text(f"{order_words(other, texts)}: {words} · {clock(other.order.posted_at)}")
        parts.set_classes(self._newest, "tz-chip", kind)

    def _notice_rows(self, beside: Notices) -> None:
        texts = self._texts
        if beside.trial is not None:
            parts.text(parts.trial_text(beside.trial, texts), "tz-notice", testid="order-trial")
        for flag in beside.flags:
            parts.text(f"⚠ {parts.flag_text(flag, texts)}", "tz-notice", testid=f"flag-{flag}")
        unsigned = texts("unsigned message")
        for flag in beside.said_flags:
            parts.text(f"⚠ {parts.flag_text(flag, texts)} · {unsigned}", "tz-notice", testid=f"flag-{flag}")
        if beside.waiting_for:
            named = ", ".join(beside.waiting_for[:20])
            said = texts("a person has to close: {switches}", switches=named)
            parts.text(f"⚠ {said} · {unsigned}", "tz-notice", testid="order-waiting-for")

    def _step(self, step: Step, trial: str | None) -> None:
        texts = self._texts
        words = step_texts(texts).get(step.name, step.name)
        if trial is not None and step.reached and step.name in {"confirmed", "held", "done"}:
            words = parts.trial_text(trial, texts)
        kind = "bad" if step.bad else "on" if step.reached else ""
        with parts.box("tz-step", kind, testid=f"step-{step.name}"):
            parts.text(words)
            parts.text(clock(step.at) if step.reached else "", "t")
            said = []
            if step.reached and step.name != "sent":
                said.append(texts("signed by the site") if step.signed else texts("unsigned message"))
            if step.power_w is not None:
                said.append(f"{localised(kilowatt(step.power_w), texts)} {texts('kW')}")
            if words_of_site := site_words(step.text, texts):
                said.append(words_of_site)
            if said:
                parts.text(" · ".join(said), "x")

    def _show_lists(self, live: Live | None, freshness: str) -> None:
        texts = self._texts
        switches = tuple(live.switches.items())[:MAX_ITEMS] if live else ()
        meters = tuple(live.points.items())[:MAX_ITEMS] if live else ()
        counts = (live.asics_total, live.asics_hashing, live.asics_sleeping) if live else (None, None, None)
        state = (meters, switches, counts, freshness)
        if state == self._shown_lists:
            return
        self._shown_lists = state
        gone = freshness == "unknown"
        unit = texts("kW")
        numbers = [(n, DASH if gone or w is None else f"{localised(kilowatt(w), texts)} {unit}") for n, w in meters]
        self._fill_list(self._meters, numbers, stale=freshness != "fresh")
        names = {"open": texts("open"), "closed": texts("closed"), "moving": texts("moving"), "faulty": texts("faulty")}
        positions = [(n, DASH if gone else names.get(p, p)) for n, p in switches]
        self._fill_list(self._switches, positions, stale=freshness != "fresh")
        total, hashing, sleeping = (None, None, None) if gone else counts
        silent = None if None in {total, hashing, sleeping} else max(0, (total or 0) - (hashing or 0) - (sleeping or 0))
        rows = [
            (texts("hashing"), hashing),
            (texts("asleep"), sleeping),
            (texts("other or silent"), silent),
            (texts("in all"), total),
        ]
        self._fill_list(self._miners, [(n, DASH if v is None else str(v)) for n, v in rows], stale=freshness != "fresh")
        for bar, count in ((self._hashing, hashing), (self._sleeping, sleeping)):
            bar.style(f"width:{100 * (count or 0) / total if total else 0:.1f}%")

    def _fill_list(self, where: ui.element, rows: Sequence[tuple[str, str]], *, stale: bool) -> None:
        where.clear()
        with where:
            if not rows:
                parts.text(self._texts("nothing reported"), "tz-soft")
            for name, value in rows:
                with parts.box("tz-item"):
                    parts.text(name)
                    parts.text(value, "tz-stale" if stale else "")

    def _show_rows(self, rows: Sequence[Any]) -> None:
        texts, listed = self._texts, [tuple(row) for row in rows[:MAX_ROWS]]
        if listed == self._shown_rows:
            return
        self._shown_rows = listed
        reasons = gap_texts(texts)
        self._rows.clear()
        with self._rows:
            if not rows:
                with parts.box(tag="tr"), parts.box(tag="td").props("colspan=4"):
                    parts.text(texts("no interval yet"), "tz-soft")
            for row in rows[:MAX_ROWS]:
                remark = reasons.get(row.why or "", row.why or "") if row.kind == "gap" else row.flags
                if row.kind == "gap":
                    remark = f"{texts('GAP')}: {remark}"
                if row.verified is False:
                    remark = " · ".join(filter(None, (remark, texts("signature is wrong"))))
                elif row.verified is None:
                    remark = " · ".join(filter(None, (remark, texts("signature not checked yet"))))
                bad = row.kind == "gap" or row.verified is False
                with parts.box("gap" if bad else "", tag="tr", testid="interval-row"):
                    for value, kind in (
                        (slot(row.t0_s, row.t1_s), ""),
                        (row.mp, ""),
                        (energy_kwh(row.wh, texts), "r"),
                        (remark, ""),
                    ):
                        with parts.box(kind, tag="td"):
                            parts.text(value)
