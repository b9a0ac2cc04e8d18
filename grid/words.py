"""An order in words, as a dispatcher would say it: every signed field, in kW and Kazakhstan time, nothing left out.

Whoever signs must have read what the machine will do. So this is made from the decoded bytes that will be signed, by
the dispatcher's own installation, and a test holds that no field of an order can be missing from it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from grid.texts import Texts
from wire.checkpoints import parse_checkpoint
from wire.notes import parse_note
from wire.orders import Order
from wire.powers import Declaration, peek
from wire.registry import KeysDocument

KAZAKHSTAN = timezone(timedelta(hours=5))
"""One zone for the whole country since 2024-03-01, no summer time."""
Rows = list[tuple[str, str]]


def local_time(ms: int, *, seconds: bool = True) -> str:
    """ms since the epoch → ``21.11.2026 18:12:05 (UTC+5)``."""
    moment = datetime.fromtimestamp(ms / 1000, UTC).astimezone(KAZAKHSTAN)
    return moment.strftime("%d.%m.%Y %H:%M:%S (UTC+5)" if seconds else "%d.%m.%Y %H:%M (UTC+5)")


def clock_time(ms: int) -> str:
    """ms since the epoch → ``18:12`` in Kazakhstan."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(KAZAKHSTAN).strftime("%H:%M")


def _decimal(value: Decimal, texts: Texts) -> str:
    plain = f"{value.normalize():f}"
    whole, _, part = plain.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    grouped = ""
    while len(digits) > 3:
        digits, grouped = digits[:-3], "\u202f" + digits[-3:] + grouped
    comma = "." if texts.language == "en" else ","
    return sign + digits + grouped + (comma + part if part else "")


def kilowatt(watt: int, texts: Texts) -> str:
    """W → exact kW with unit."""
    return texts("{number} kW", number=_decimal(Decimal(watt) / 1000, texts))


def live_power(watt: int, texts: Texts) -> str:
    """W → rounded kW for the eye: whole from 100 kW on, one decimal below. What is signed is never rounded."""
    unit = Decimal(1) if abs(watt) >= 99_950 else Decimal("0.1")
    return texts("{number} kW", number=_decimal((Decimal(watt) / 1000).quantize(unit), texts))


def spoken_power(watt: int, texts: Texts) -> str:
    """W → as said on the telephone: MW with one decimal from 1 MW on, else whole kW."""
    if abs(watt) >= 1_000_000:
        value = (Decimal(watt) / 1_000_000).quantize(Decimal("0.1"))
        return texts("{number} MW", number=_decimal(value, texts))
    return texts("{number} kW", number=_decimal((Decimal(watt) / 1000).quantize(Decimal(1)), texts))


def said_power(watt: int, texts: Texts) -> str:
    """W → as a limit is said on the telephone: exact, MW from 1 MW on, else kW."""
    if abs(watt) >= 1_000_000:
        return texts("{number} MW", number=_decimal(Decimal(watt) / 1_000_000, texts))
    return kilowatt(watt, texts)


def completion(at_ms: int, power_w: int | None, texts: Texts) -> str:
    """The line to be read aloud: «Выполнено 18:12, нагрузка 38 МВт»."""
    if power_w is None:
        return texts("Done {time}, load not measured", time=clock_time(at_ms))
    return texts("Done {time}, load {power}", time=clock_time(at_ms), power=spoken_power(power_w, texts))


def returned(at_ms: int, power_w: int | None, texts: Texts) -> str:
    """That the load is back: «Возврат завершён 19:40, нагрузка 81 МВт»."""
    if power_w is None:
        return texts("Return finished {time}, load not measured", time=clock_time(at_ms))
    return texts("Return finished {time}, load {power}", time=clock_time(at_ms), power=spoken_power(power_w, texts))


def given_back(at_ms: int, sites: int, of: int, power_w: int | None, rate_w_per_min: int | None, texts: Texts) -> str:
    """The line to be read aloud after a plan is released: «18:40: возврат разрешён, объектов 48 из 50, 8,4 МВт».

    Args:
        at_ms: when.
        sites: sites that signed that they return.
        of: sites at which load of the plan was off.
        power_w: what returns there; ``None`` is unknown.
        rate_w_per_min: how fast at most, all together; ``None``: not bounded.
        texts: the language.
    """
    parts = [texts("{time}: return allowed, sites {number} of {all}", time=clock_time(at_ms), number=sites, all=of)]
    parts.append(texts("power not known") if power_w is None else spoken_power(power_w, texts))
    if rate_w_per_min is not None:
        parts.append(texts("at most {power} a minute", power=spoken_power(rate_w_per_min, texts)))
    return ", ".join(parts)


def kilowatt_hours(wh: int, texts: Texts) -> str:
    """Wh → exact kWh, without the unit."""
    return _decimal(Decimal(wh) / 1000, texts)


def permille(value: int, texts: Texts) -> str:
    """Per mille → percent with one decimal."""
    return _decimal(Decimal(value) / 10, texts) + "\u00a0%"


def headline(order: Order, texts: Texts) -> str:
    """What is to be done, in one sentence."""
    t = texts
    match order.action:
        case "limit" if order.limit_w is not None:
            return t("Limit the load to {power}", power=kilowatt(order.limit_w, t))
        case "limit":
            return t("Limit the load to {share} of the contracted power", share=permille(order.permille or 0, t))
        case "reduce" if order.reduce_w is not None:
            return t("Reduce the load by {power}", power=kilowatt(order.reduce_w, t))
        case "reduce":
            return t("Reduce the load by {share} of the contracted power", share=permille(order.permille or 0, t))
        case "stop":
            return t("Stop: reach the emergency reservation within the technological time")
        case "stage":
            return t("Shed stage {stage}", stage=order.stage)
        case "open_feeders":
            return t("Open the feeders {feeders}", feeders=", ".join(order.feeders or ()))
        case "schedule":
            hours = "; ".join(f"{i:02d}:00 {kilowatt(w, t)}" for i, w in enumerate(order.hours or ()))
            return t("Keep the hourly limits: {hours}", hours=hours)
        case "release":
            what = t("all orders of this signer") if order.target == "all" else str(order.target)
            return t("Release: {what}", what=what)
        case "extend":
            return t("Extend the order {what}", what=order.target)
        case "cancel":
            return t("Cancel the order {what}", what=order.target)
        case "emergency_trip":
            return t("EMERGENCY TRIP: open the switches at once")


def _measured(order: Order, t: Texts) -> str:
    places = {"net_import": t("net import at the boundary"), "gross_mining": t("mining alone")}
    bases = {
        "instant_1min": t("one-minute power"),
        "slot": t("energy of the slot"),
        "hour_energy": t("energy of the hour"),
    }
    text = f"{places.get(order.measured_at, order.measured_at)}; {bases[order.limit_basis]}"
    if order.tolerance_w:
        text += "; " + t("tolerance {power}", power=kilowatt(order.tolerance_w, t))
    return text


def _hold(order: Order, t: Texts) -> str:
    if order.hold is None:
        return ""
    if order.hold.until is None:
        return t("until released")
    after = (
        t("then the load comes back by itself")
        if order.hold.restore_auto
        else t("then the load stays off until it is released")
    )
    return t("until {time}", time=local_time(order.hold.until)) + ", " + after


def _restore(order: Order, t: Texts) -> str:
    restore = order.restore
    if order.action == "release":
        parts = [t("in the steps of the order that is released")]
    else:
        share = permille(restore.stage_permille, t)
        parts = [t("in steps of {share} every {seconds} s", share=share, seconds=restore.stage_delay_s)]
    if restore.max_w_per_min is not None:
        parts.append(t("at most {power} per minute", power=kilowatt(restore.max_w_per_min, t)))
    if restore.min_mhz is not None:
        parts.append(t("only from {hz} Hz", hz=_decimal(Decimal(restore.min_mhz) / 1000, t)))
    if restore.ceiling_w is not None:
        parts.append(t("up to {power}", power=kilowatt(restore.ceiling_w, t)))
    return "; ".join(parts)


def _methods(order: Order, t: Texts) -> str:
    names = {
        "sleep": t("put machines to sleep"),
        "power_limit": t("lower machines' power"),
        "outlet": t("switch outlets off"),
        "switch": t("open switches"),
    }
    return ", ".join(names[m] for m in order.methods)


def _escalation(order: Order, t: Texts) -> str:
    if order.escalation.to == "none":
        # The waiting time says nothing here, but it is signed, so it is shown.
        return t("none ({seconds} s)", seconds=order.escalation.after_s)
    return t("without effect at the meter after {seconds} s: open switches", seconds=order.escalation.after_s)


def _power(text: str | None, t: Texts) -> str | None:
    """A declaration or mandate that comes with an order: what it allows, who signed it, and the digest of all of it."""
    if text is None:
        return None
    digest = f"SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"
    found = peek(text)
    if found is None:
        return t("cannot be read; {digest}", digest=digest)
    power, kids = found
    most = power.cap_w if isinstance(power, Declaration) else power.max_cut_w
    return t(
        "{id}: up to {power} per site in {zones}, until {time}, signed by {kids}; {digest}",
        id=power.id,
        power=kilowatt(most, t),
        zones=", ".join(power.zones),
        time=local_time(power.valid_to),
        kids=", ".join(kids),
        digest=digest,
    )


def _known_log(note: str | None, t: Texts) -> str | None:
    if note is None:
        return None
    known = parse_checkpoint(parse_note(note.encode()).text)
    return t("{size} records, root {root}", size=known.size, root=known.root.hex()[:16])


def describe(order: Order, texts: Texts, *, site_name: str | None = None, signers: str | None = None) -> Rows:
    """Label and value of every field of an order, in the order in which a dispatcher speaks.

    Args:
        order: decoded from the bytes to be signed.
        texts: the language.
        site_name: the dispatch name of the site, shown beside the signed id.
        signers: who signs or has signed.
    """
    t = texts
    modes = {
        "live": t("live"),
        "drill": t("DRILL: nothing is switched"),
        "proof_test": t("PROOF TEST: live, by consent of both sides"),
    }
    site = f"{site_name} ({order.site})" if site_name else order.site
    rows: Rows = [
        (t("Order"), headline(order, t)),
        (t("Site"), site),
        (t("Kind"), modes[order.mode]),
        (t("Measured"), _measured(order, t)),
    ]
    if order.hold is not None:
        rows.append((t("Hold"), _hold(order, t)))
    rows += [
        (t("Means"), _methods(order, t)),
        (t("Escalation"), _escalation(order, t)),
        (t("Return of load"), _restore(order, t)),
    ]
    if order.not_before is not None:
        rows.append((t("Not before"), local_time(order.not_before)))
    rows.append((t("Begin by"), local_time(order.execute_by)))
    rows.append((t("Valid until"), local_time(order.expires_at)))
    optional = (
        (t("Change per minute"), kilowatt(order.ramp_w_per_min, t) if order.ramp_w_per_min is not None else None),
        (t("Largest step"), kilowatt(order.max_step_w, t) if order.max_step_w is not None else None),
        (t("Lease"), t("{seconds} s", seconds=order.lease_s) if order.lease_s is not None else None),
        (t("Replaces"), order.supersedes),
        (t("Dispatch name"), order.basis.dispatch_name),
        (t("Dispatch number"), order.basis.dispatch_no),
        (t("Given by"), order.basis.given_by),
        (t("Reason"), order.basis.text),
        (t("Emergency"), order.basis.emergency_id),
        (t("Emergency declaration"), _power(order.declaration, t)),
        (t("Mandate"), _power(order.mandate, t)),
        (t("Attachment SHA-256"), order.basis.attachment_sha256),
        (t("Known log of the site"), _known_log(order.seen, t)),
    )
    rows += [(label, value) for label, value in optional if value is not None]
    rows += [
        (t("Basis"), order.basis.code),
        (t("Priority"), str(order.priority)),
        (t("Issued"), local_time(order.issued_at)),
        (t("Number"), str(order.seq)),
        (t("Epoch"), order.epoch),
        (t("Id"), order.id),
    ]
    if signers:
        rows.append((t("Signed by"), signers))
    return rows


def signer_text(kid: str, register: KeysDocument | None) -> str:
    """Person and organisation behind a key, or the bare key where the register does not name it."""
    issuer = register.issuer(kid) if register else None
    person = register.person(issuer.person) if register and issuer else None
    return f"{person.name}, {person.organisation} [{kid}]" if person else f"[{kid}]"
