"""Numbers and times as people read them. Unknown is a dash, never 0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from central.pages.texts import Texts

DASH = "—"
KAZAKHSTAN = timezone(timedelta(hours=5), "UTC+5")
"""One time zone for the whole country since 1 March 2024."""
_THIN = "\u202f"


def kilowatt(power_w: int | float | None) -> str:
    """W → kW with grouped digits: whole from 100 kW on, one decimal below. The unit stands beside it."""
    if power_w is None:
        return DASH
    kw = power_w / 1000
    text = f"{kw:,.0f}" if abs(kw) >= 99.95 else f"{kw:,.1f}"
    return text.replace(",", _THIN).replace("-", "\u2212")


def localised(number: str, texts: Texts) -> str:
    """Decimal comma for Kazakh and Russian."""
    return number if texts.language == "en" else number.replace(".", ",")


def energy_kwh(wh: int | None, texts: Texts) -> str:
    """Wh → kWh, exactly."""
    if wh is None:
        return DASH
    sign, whole = ("\u2212" if wh < 0 else ""), abs(wh)
    return localised(f"{sign}{whole // 1000:,}.{whole % 1000:03d}".replace(",", _THIN), texts)


def age(age_ms: int | None, texts: Texts) -> str:
    """How old, in the largest unit that says enough."""
    if age_ms is None:
        return DASH
    seconds = age_ms // 1000
    if seconds < 120:
        return texts("{n} s ago", n=seconds)
    if seconds < 7200:
        return texts("{n} min ago", n=seconds // 60)
    return texts("{n} h ago", n=seconds // 3600)


def clock(at_ms: int | None) -> str:
    """Kazakhstan time of day with seconds."""
    return (
        DASH if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(KAZAKHSTAN).strftime("%H:%M:%S")
    )


def slot(t0_s: int, t1_s: int) -> str:
    """Begin and end of a slot in Kazakhstan time, with the date."""
    first = datetime.fromtimestamp(t0_s, KAZAKHSTAN)
    last = datetime.fromtimestamp(t1_s, KAZAKHSTAN)
    form = "%H:%M:%S" if (t1_s - t0_s) % 60 else "%H:%M"
    return f"{first:%d.%m} {first.strftime(form)}\u2013{last.strftime(form)}"
