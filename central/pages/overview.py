"""``/``: every site on one page, what differs from normal first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from central.api.views import site_summary
from central.dispatch import OrderView
from central.pages import parts
from central.pages.board import Board
from central.pages.call import DRILL, is_drill, missing
from central.pages.curtailable import kw, summed
from central.pages.format import DASH, kilowatt, localised
from central.pages.funnel import FunnelCard, Place, place
from central.pages.parts import call_part
from central.pages.story import notices
from central.pages.texts import Texts
from wire.states import ended

REFRESH_S = 1.0
DRILL_MS = 600_000


class SiteCard:
    """One site, with its number, age, mode, limit and order."""

    def __init__(self, board: Board, texts: Texts, site: str) -> None:
        self._board, self._texts, self._site = board, texts, site
        settings = board.service.sites[site]
        with parts.box("tz-card", tag="a", testid=f"site-{site}").props(f'href="/site/{quote(site)}"'):
            with parts.box("tz-row", "tz-between"):
                parts.text(getattr(settings.name, texts.language), "tz-name")
                self._presence = parts.text(DASH, "tz-chip")
            self._power = parts.Power(texts, number_id=f"site-{site}-kw", age_id=f"site-{site}-age")
            with parts.box("tz-bar").props('aria-hidden="true"'):
                self._fill, self._mark = parts.box("tz-fill"), parts.box("tz-mark")
            with parts.box("tz-row", "tz-between"):
                self._limit = parts.text(DASH, "tz-soft")
                self._mode = parts.text(DASH, "tz-soft")
            self._curtailable = parts.text(DASH, "tz-soft", testid=f"site-{site}-curtailable")
            with parts.box("tz-row").style("margin-top:10px; min-height:27px"):
                self._order = parts.text("", "tz-chip", testid=f"site-{site}-order")
                self._alarm = parts.text("", "tz-chip", "bad")

    async def show(self) -> Mapping[str, Any]:
        """Refresh; returns the summary that was shown and whether an order is open."""
        texts, summary = self._texts, site_summary(self._board.service, self._site)
        self._power.show(summary)
        parts.presence_chip(self._presence, texts, summary)
        parts.fill_share(self._fill, self._mark, summary)
        contracted = localised(kilowatt(summary["contracted_w"]), texts)
        limit = localised(kilowatt(summary["limit_w"]), texts)
        self._limit.set_text(
            texts("contracted {kw} kW", kw=contracted)
            if summary["limit_w"] is None
            else texts("limit {kw} kW of {whole} kW", kw=limit, whole=contracted)
        )
        self._mode.set_text(parts.mode_text(summary["mode"], texts))
        now = summary["curtailable"]
        by_sleep, by_switch = (kw(now[name] if now else None, texts) for name in ("sleep_w", "switch_w"))
        self._curtailable.set_text(
            texts("curtailable: {sleep} by sleep, {switch} by switches", sleep=by_sleep, switch=by_switch)
        )
        newest, shedding = await self._board.order(self._site), await self._board.shedding(self._site)
        # A release is never "under way": the order that it releases is, until its load is back.
        view = shedding or newest
        is_open = view is not None and (view.state is None or not ended(view.state))
        self._order.set_visibility(view is not None and is_open)
        if view is not None:
            words, kind = parts.phase_texts(texts)[view.phase.value]
            if (trial := notices(view).trial) is not None and kind == "good":
                words, kind = parts.trial_text(trial, texts), "warn"
            if is_drill(view):
                words = f"{DRILL} · {words}"
            if any(v is not None and missing(v) for v in (newest, shedding)):
                words, kind = texts("NOT DELIVERED — CALL"), "bad"
            self._order.set_text(f"{texts('order')}: {words}")
            parts.set_classes(self._order, "tz-chip", kind)
        alarms = summary["alarms"]
        self._alarm.set_visibility(bool(alarms))
        self._alarm.set_text(parts.alarm_text(alarms[0], texts) if alarms else "")
        late = next((v for v in (newest, shedding) if v is not None and missing(v)), None)
        self._order.set_visibility(view is not None and (is_open or late is not None))
        drill = any(
            is_drill(v) and v is not None and _lately(v, self._board.service.now_ms()) for v in (newest, shedding)
        )
        where = None if shedding is None else self._place(shedding, summary)
        return {**summary, "place": where, "open": is_open, "missing": late is not None, "late": late, "drill": drill}

    def _place(self, view: OrderView, summary: Mapping[str, Any]) -> Place | None:
        name = getattr(self._board.service.sites[self._site].name, self._texts.language)
        return place(view, summary, name, self._board.service.now_ms())


def _lately(view: OrderView, now_ms: int) -> bool:
    """A drill's banner stays while it is under way, and for a while after its answer: it ends at once."""
    return view.state is None or not ended(view.state) or now_ms - view.order.posted_at < DRILL_MS


def build(board: Board, texts: Texts) -> None:
    """The page."""
    service = board.service
    clock = parts.head(texts, texts("All sites"), "/")
    with parts.box("tz-main", tag="main"):
        drill = parts.banner("tz-drill", "note", "banner-drill")
        with drill:
            parts.text(DRILL)
        simulation = parts.banner("tz-sim", "note", "banner-simulation")
        with simulation:
            parts.text(texts("SIMULATION — these are no real plants and no real power"))
        broker = parts.banner("tz-warn", "status", "banner-broker")
        with broker:
            parts.text(texts("No connection to the message broker: presence of the sites is not known"))
        alarm = parts.banner("tz-alarm", "alert", "banner-not-delivered")
        with alarm:
            calls = parts.box("tz-calls")
        shown_calls: list[object] = []
        headline = parts.text(DASH, "tz-headline", testid="headline")
        funnel = FunnelCard(texts)
        with parts.box("tz-sites"):
            cards = [SiteCard(board, texts, site) for site in service.sites]
        if not cards:
            parts.text(texts("No site is registered yet: add one to central's settings"), "tz-soft")

    async def refresh() -> None:
        parts.set_clock(clock, texts, service.now_ms())
        shown = [await card.show() for card in cards]
        simulation.set_visibility(any(s["simulation"] for s in shown))
        broker.set_visibility(not service.live.broker_up)
        drill.set_visibility(any(s["drill"] for s in shown))
        waiting = [s for s in shown if s["missing"]]
        alarm.set_visibility(bool(waiting))
        ids = [(s["id"], s["late"].order.id) for s in waiting]
        if ids != shown_calls:
            shown_calls[:] = ids
            calls.clear()
            with calls:
                for one in waiting:
                    call_part(one["late"], one["name"][texts.language], one["phone"], texts)
        funnel.show([s["place"] for s in shown if s["place"] is not None])
        headline.set_text(_sentence(shown, texts))

    ui.timer(REFRESH_S, refresh)


def _sentence(shown: list[Mapping[str, Any]], texts: Texts) -> str:
    """Home in one sentence. The sum counts fresh numbers alone and says how many."""
    fresh = [s for s in shown if s["freshness"] == "fresh" and s["power_w"] is not None]
    total = localised(kilowatt(sum(s["power_w"] for s in fresh)), texts) if fresh else DASH
    said = [texts("{kw} kW now, from {n} of {all} sites", kw=total, n=len(fresh), all=len(shown))]
    by_sleep, by_switch, told = summed(shown)
    if told:
        sums = {"sleep": kw(by_sleep, texts), "switch": kw(by_switch, texts), "n": told}
        said.append(texts("curtailable: {sleep} by sleep, {switch} by switches, from {n} sites", **sums))
    is_open = sum(1 for s in shown if s["open"])
    said.append(texts("orders under way: {n}", n=is_open) if is_open else texts("no order under way"))
    return " · ".join(said)
