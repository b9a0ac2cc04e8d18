"""Pieces that every page has: head, banners, chips, and labels that can be refreshed in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui
from nicegui.element import Element

from central.dispatch import OrderView
from central.live import Freshness
from central.pages.call import script
from central.pages.format import DASH, age, clock, kilowatt, localised
from central.pages.style import CSS
from central.pages.texts import LANGUAGES, Texts

FAVICON = "data:,"


def box(*classes: str, tag: str = "div", testid: str | None = None) -> Element:
    """A plain element."""
    element = ui.element(tag).classes(" ".join(classes))
    if testid is not None:
        element.props(f'data-testid="{testid}"')
    return element


def text(content: str, *classes: str, testid: str | None = None) -> ui.label:
    """A label; whatever it holds is text, never markup."""
    label = ui.label(content).classes(" ".join(classes))
    if testid is not None:
        label.props(f'data-testid="{testid}"')
    return label


def set_classes(element: Element, base: str, *more: str) -> None:
    """Exactly these classes."""
    element.classes(replace=" ".join((base, *(word for word in more if word))))


def head(texts: Texts, crumb: str, path: str) -> ui.label:
    """Top of the page; returns the clock to be refreshed."""
    ui.add_css(CSS)
    ui.page_title(f"Tizgin · {crumb}")
    with box("tz-top", tag="header"):
        ui.link("Tizgin", "/").classes("tz-brand")
        text(crumb, "tz-crumb")
        box("tz-grow")
        shown = text(DASH, "tz-clock")
        with box("tz-langs", tag="nav").props(f'aria-label="{texts("Language")}"'):
            for code, name in zip(LANGUAGES, ("Қаз", "Рус", "Eng"), strict=True):
                link = ui.link(name, f"/lang/{code}?to={path}").props(f'data-testid="lang-{code}" lang="{code}"')
                if code == texts.language:
                    link.classes("on").props('aria-current="true"')
    return shown


def set_clock(label: ui.label, texts: Texts, now_ms: int) -> None:
    """Kazakhstan time now."""
    label.set_text(f"{clock(now_ms)} {texts('Kazakhstan time, UTC+5')}")


def banner(kind: str, role: str, testid: str) -> Element:
    """An invisible banner; the caller fills and shows it."""
    element = box("tz-banner", kind, testid=testid).props(f'role="{role}"')
    element.set_visibility(False)
    return element


def call_part(view: OrderView, name: str, phone: str | None, texts: Texts) -> None:
    """NOT DELIVERED — CALL, with the number and what to read aloud."""
    with box("tz-call", testid="call"):
        with box("tz-row"):
            text(f"{texts('NOT DELIVERED — CALL')}: {name}")
            if phone:
                ui.link(phone, f"tel:{''.join(c for c in phone if c in '+0123456789')}")
        text(texts("Read aloud:"), "tz-small")
        with box("tz-script", testid="call-script"):
            for line in script(view, name, texts):
                text(line)
        text(texts("Then enter at the desk who took it, when, and the recording's number."), "tz-small")


class Power:
    """A big number with its unit, age and freshness. Stale is marked, unknown is a dash."""

    def __init__(self, texts: Texts, *, number_id: str, age_id: str) -> None:
        self._texts = texts
        with box("tz-row"):
            self._number = text(DASH, "tz-kw", testid=number_id)
            text(texts("kW"), "tz-unit")
        self._age = text(DASH, "tz-chip", testid=age_id)

    def show(self, summary: Mapping[str, Any]) -> None:
        """Refresh from a site's summary."""
        texts, freshness = self._texts, summary["freshness"]
        number = localised(kilowatt(summary["power_w"]), texts)
        self._number.set_text(number)
        old = age(summary["age_ms"], texts)
        if freshness == Freshness.FRESH:
            set_classes(self._number, "tz-kw")
            self._age.set_text(old)
            set_classes(self._age, "tz-chip", "good")
        elif freshness == Freshness.STALE:
            set_classes(self._number, "tz-kw", "tz-stale")
            self._age.set_text(f"{texts('stale')} · {old}")
            set_classes(self._age, "tz-chip", "warn")
        else:
            set_classes(self._number, "tz-kw", "tz-unknown")
            said = texts("no live data") if summary["age_ms"] is None else f"{texts('no live data')} · {old}"
            self._age.set_text(said)
            set_classes(self._age, "tz-chip", "bad")


def presence_chip(label: ui.label, texts: Texts, summary: Mapping[str, Any]) -> None:
    """Connected, not connected, or not known."""
    names = {
        "online": (texts("connected"), "good"),
        "offline": (texts("not connected"), "bad"),
        "unknown": (texts("connection unknown"), "warn"),
    }
    said, kind = names[summary["presence"]]
    label.set_text(said)
    set_classes(label, "tz-chip", kind)


def mode_text(mode: str | None, texts: Texts) -> str:
    """The agent's mode."""
    names = {"monitor": texts("observes only"), "shadow": texts("trial, nothing switched"), "armed": texts("armed")}
    return names.get(mode or "", DASH)


def alarm_text(alarm: str, texts: Texts) -> str:
    """An alarm in words; one that nobody knows as it is."""
    name, _, what = alarm.partition(":")
    names = {
        "fork": texts("two versions of one record"),
        "other_hash": texts("the site's chain contradicts the stored one"),
        "tail_lost": texts("the site lost records that are stored here"),
        "clock_unsynchronised": texts("the site's clock is not synchronised"),
        "storage": texts("the site cannot store what it measures"),
        "orphaned": texts("the lease of an order has lapsed"),
        "saon_lock": texts("locked by emergency automatics"),
        "saon_volume": texts("too little load behind a stage of emergency automatics"),
        "meter_silent": texts("meter is silent"),
        "certificate_ends": texts("the site's certificate ends soon and was not renewed"),
        "certificate_expired": texts("the site's certificate has ended"),
        "certificate_refused": texts("the site could not renew its certificate"),
        "positions_unconfirmed": texts("nobody has confirmed the switches' positions since the box was replaced"),
        "log_key_unavailable": texts("the key of the site's evidence log does not sign: no checkpoints"),
        "key_change_missed": texts("a change of the site's key did not happen in time"),
        "order_unacknowledged": texts("nobody on site has acknowledged an order"),
        "maintenance": texts("in maintenance"),
        "maintenance_unhealthy": texts("maintenance is over and the equipment is not healthy"),
    }
    words = names.get(name)
    if words is None:
        return alarm
    return f"{words}: {what}" if what else words


def flag_text(flag: str, texts: Texts) -> str:
    """What stands beside an order's state."""
    names = {
        "degraded": texts("part of the plant does not obey"),
        "blind": texts("no live meter proves it"),
        "orphaned": texts("the lease of an order has lapsed"),
        "saon_lock": texts("locked by emergency automatics"),
        "local_override": texts("a person on site took a switch over"),
        "clock_suspect": texts("the site's clock is in doubt"),
    }
    return names.get(flag, flag)


def trial_text(trial: str, texts: Texts) -> str:
    """Why nothing was moved for an order."""
    names = {
        "shadow": texts("shadow: nothing was moved"),
        "monitor": texts("observes only: nothing was moved"),
        "drill": texts("DRILL: nothing was moved"),
    }
    return names.get(trial, trial)


def phase_texts(texts: Texts) -> dict[str, tuple[str, str]]:
    """Phase of an order → (words, kind of chip)."""
    return {
        "sent": (texts("sent"), "info"),
        "accepted": (texts("accepted"), "info"),
        "acting": (texts("acting"), "info"),
        "confirming": (texts("waits for the meter"), "info"),
        "held": (texts("held"), "good"),
        "returning": (texts("load returns"), "info"),
        "done": (texts("done"), "good"),
        "refused": (texts("refused"), "bad"),
        "needs_attention": (texts("needs attention"), "bad"),
    }


def fill_share(fill: Element, mark: Element, summary: Mapping[str, Any]) -> None:
    """Power and limit as shares of the contracted power."""
    whole, power, limit = summary["contracted_w"], summary["power_w"], summary["limit_w"]
    share = 0.0 if power is None or not whole else max(0.0, min(1.0, power / whole))
    over = power is not None and limit is not None and power > limit
    stale = summary["freshness"] != "fresh"
    set_classes(fill, "tz-fill", "stale" if stale else "over" if over else "")
    fill.style(f"width:{share * 100:.1f}%")
    mark.set_visibility(limit is not None and bool(whole))
    if limit is not None and whole:
        mark.style(f"left:{min(100.0, limit / whole * 100):.1f}%")


def show_report(link: ui.link, view: OrderView, texts: Texts) -> None:
    """Show the link to an order's report where the site has signed one."""
    link.set_visibility(any(a.ty == "cmd_report" and a.verified is not False for a in view.answers))
    link.props(f'href="/api/v1/orders/{quote(view.order.id)}/report.pdf?language={texts.language}"')
