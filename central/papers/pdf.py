"""The report of an order as a PDF in Kazakh, Russian or English. Set by typst, with the fonts that it brings along, so
that the page looks the same on every computer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from importlib.resources import files
from typing import Any, Literal

from central.errors import CentralError
from central.pages.format import DASH, KAZAKHSTAN, kilowatt, localised
from central.pages.texts import Texts
from central.papers.curve import Marks, draw
from central.papers.order_report import OrderReport
from central.papers.supply import battery_rows
from central.papers.supply import rows as supply_rows
from wire.orders import Order
from wire.registry import KeysDocument

SHOWN_PARTS = 12
"""Of the trace's parts the first and the last ones are listed; a bundle has them all."""


def render(
    found: OrderReport,
    register: KeysDocument | None,
    texts: Texts,
    site_name: str,
    *,
    form: Literal["pdf", "png"] = "pdf",
) -> list[bytes]:
    """The document: one file for a PDF, one for each page of PNG.

    Raises:
        CentralError: the typesetter is not installed.
    """
    try:
        typst = import_module("typst")
    except ImportError:
        raise CentralError("PDF needs the package 'typst': pip install 'tizgin[central]'") from None
    template = (files("central") / "papers" / "order_report.typ").read_bytes()
    data = json.dumps(content(found, register, texts, site_name), ensure_ascii=False)
    compiler = typst.Compiler(template, ignore_system_fonts=True)
    made = compiler.compile(format=form, sys_inputs={"data": data}, timestamp=found.record.at // 1000, ppi=110)
    return made if isinstance(made, list) else [made or b""]


def verdict_words(verdict: str, texts: Texts) -> str:
    """The verdict as people say it."""
    names = {
        "obeyed": texts("Obeyed"),
        "short": texts("Not obeyed in full"),
        "unknown": texts("Not known: too much is not measured"),
        "not_due": texts("Nothing was due"),
    }
    return names.get(verdict, verdict)


def excuse_words(code: str, texts: Texts) -> str:
    """An excusable cause as people say it."""
    names = {
        "not_delivered": texts("the order reached the site late"),
        "tag": texts("an output was tagged"),
        "reservation": texts("the target was raised to the emergency reservation"),
        "unsafe_cooling": texts("machines had to cool down first"),
        "no_meter": texts("power was not measured"),
        "local_override": texts("local override"),
        "saon": texts("emergency automatics had operated"),
        "not_commissioned": texts("an output was not commissioned"),
    }
    return f"{names.get(code, code)} ({code})"


def content(found: OrderReport, register: KeysDocument | None, texts: Texts, site_name: str) -> dict[str, Any]:
    """Everything the template shows, as texts."""
    said, order = found.fields, found.order
    marks = Marks(
        said["target_w"], said["before_w"], said["begin"], said["end"], texts("kW"), texts("begin"), texts("end")
    )
    return {
        "language": texts.language,
        "title": texts("Report of an order"),
        "site": f"{site_name} ({found.stored.site})",
        "verdict": verdict_words(said["verdict"], texts),
        "verdict_code": said["verdict"],
        "order": [[texts("Order"), _ordered(order, texts)], *_order_rows(found, register, texts)],
        "figures_title": texts("Figures"),
        "figures": _figures(said, texts) + battery_rows(said, texts, _energy),
        "curve_title": texts("Power at {point}", point=said["point"]),
        "curve": draw(found.samples, marks),
        "curve_note": texts(
            "Solid: power read from the meter; shaded: nothing read. Red: target. Dashed: power before."
        ),
        "supply_title": texts("Voltage and reactive power, least … greatest (drawn: +, given: −)"),
        "supply": supply_rows(said, texts) or [[texts("not measured"), DASH]],
        "baseline_title": texts("What would have been drawn"),
        "baselines": _baselines(found, texts),
        "excuses_title": texts("Causes that the site names; the dispatcher may dispute them"),
        "excuses": [excuse_words(code, texts) for code in said["excuses"]] or [texts("none")],
        "evidence_title": texts("Where it is written: stream cmd of epoch {epoch}", epoch=found.stored.epoch),
        "evidence_head": [texts("Record"), texts("No."), texts("Time"), texts("Key"), texts("Leaf hash (SHA-256)")],
        "evidence": _evidence(found, texts),
        "note": texts(
            "Every figure follows from these records; tizgin verify computes them again out of an evidence bundle."
        ),
    }


def _ordered(order: Order, texts: Texts) -> str:
    power = order.limit_w if order.limit_w is not None else order.reduce_w
    names = {
        "limit": texts("Limit"),
        "reduce": texts("Reduce"),
        "stop": texts("Stop"),
        "emergency_trip": texts("Emergency trip"),
        "open_feeders": texts("Open feeders"),
    }
    words = names.get(order.action, order.action)
    if power is not None:
        words += f" {_power(power, texts)}"
    elif order.permille is not None:
        words += f" {localised(f'{order.permille / 10:g}', texts)} %"
    return words + (f": {', '.join(order.feeders)}" if order.feeders else "")


def _order_rows(found: OrderReport, register: KeysDocument | None, texts: Texts) -> list[list[str]]:
    said, order, rows = found.fields, found.order, list[list[str]]()
    bases = {
        "instant_1min": texts("one-minute power"),
        "slot": texts("energy of the slot"),
        "hour_energy": texts("energy of the hour"),
    }
    rows += [
        [texts("Ordered by"), "\n".join(_signer(kid, register) for kid in found.kids)],
        [texts("Reason"), " · ".join(p for p in (order.basis.code, order.basis.dispatch_no, order.basis.text) if p)],
        [texts("Signed"), _moment(order.issued_at)],
        [texts("Received at the site"), _moment(said["begin"] if found.received is None else found.received)],
        [texts("The duty"), f"{_moment(said['begin'])} – {_moment(said['end'])}"],
        [texts("Time to the target"), texts("{n} s", n=said["grace_s"])],
        [texts("Judged by"), f"{bases.get(said['basis'], said['basis'])} ({said['method']}), {said['point']}"],
        [texts("Power before"), _power(said["before_w"], texts)],
        [texts("Target"), _power(said["target_w"], texts)],
        [texts("Order id"), found.stored.id],
    ]
    return rows


def _signer(kid: str, register: KeysDocument | None) -> str:
    issuer = next((i for i in register.issuers if i.kid == kid), None) if register else None
    person = register.person(issuer.person) if register and issuer else None
    return kid if person is None else f"{person.name}, {person.organisation} ({kid})"


def _figures(said: Mapping[str, Any], texts: Texts) -> list[list[str]]:
    minutes = said["mw"]
    return [
        [texts("Power in minute 1"), _power(minutes["m1_w"], texts)],
        [texts("Power in minute 5"), _power(minutes["m5_w"], texts)],
        [texts("Power in minute 15"), _power(minutes["m15_w"], texts)],
        [texts("Half / nine tenths / all of it after"), _times(said, texts)],
        [texts("Delivered of what was ordered"), _share(said["delivered_permille"], texts)],
        [texts("Windows in which the target was met"), _share(said["hold_permille"], texts)],
        [texts("Energy above the target"), _energy(said["shortfall_wh"], texts)],
        [texts("Below the target by at most"), _power(said["overshoot_w"], texts)],
        [texts("Return above the power before by"), _power(said["rebound_w"], texts)],
        [texts("Not measured"), _share(said["missing_permille"], texts)],
    ]


def _baselines(found: OrderReport, texts: Texts) -> list[list[str]]:
    names = {
        "before_after": texts("Before the order (10 min)"),
        "same_day_3_2": texts("Same day, 3 + 2 hours"),
        "high_4_of_5": texts("Highest 4 of 5 like days"),
    }
    reasons = {
        "too_few_samples": texts("too few samples"),
        "hours_before_missing": texts("hours before it are missing"),
        "hours_after_missing": texts("hours after it are missing"),
        "too_few_days": texts("too few like days"),
        "longer_than_a_day": texts("longer than a day"),
    }
    rows, told = [], found.fields["baseline"]
    for name, words in names.items():
        value = told[name]
        why = str(told["lacking"].get(name, ""))
        text = reasons.get(why, why) if value is None else f"{_power(value['b_w'], texts)} (n = {value['n']})"
        if name == "same_day_3_2" and value is None and isinstance(found.same_day, dict):
            text = f"{_power(found.same_day['b_w'], texts)} ({texts('computed by central now, not signed')})"
        rows.append([words, text])
    return rows


def _evidence(found: OrderReport, texts: Texts) -> list[list[str]]:
    traces = [e for e in found.evidence if e.ty == "cmd_trace"]
    hidden = {e.n for e in traces[SHOWN_PARTS // 2 : -SHOWN_PARTS // 2]} if len(traces) > SHOWN_PARTS else set()
    rows: list[list[str]] = []
    for one in found.evidence:
        if one.n not in hidden:
            checked = {True: "", False: " ✗", None: f" ({texts('not checked')})"}[one.verified]
            rows.append([one.ty + checked, str(one.n), _moment(one.at)[11:19], one.kid, one.leaf])
        elif rows and rows[-1][0] != "…":
            rows.append(["…", "", "", "", texts("{n} more parts of the trace", n=len(hidden))])
    return rows


def _times(said: Mapping[str, Any], texts: Texts) -> str:
    values: Sequence[int | None] = [said["t50_ms"], said["t90_ms"], said["t100_ms"]]
    words = [texts("never") if v is None else localised(f"{v / 1000:.1f}", texts) + " " + texts("s") for v in values]
    return " / ".join(words)


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, KAZAKHSTAN).strftime("%d.%m.%Y %H:%M:%S (UTC+5)")


def _power(watt: int | None, texts: Texts) -> str:
    return DASH if watt is None else f"{localised(kilowatt(watt), texts)} {texts('kW')}"


def _energy(wh: int | None, texts: Texts) -> str:
    return DASH if wh is None else f"{localised(f'{wh / 1000:,.1f}'.replace(',', chr(0x202F)), texts)} {texts('kWh')}"


def _share(permille: int | None, texts: Texts) -> str:
    return DASH if permille is None else f"{localised(f'{permille / 10:.1f}', texts)} %"
