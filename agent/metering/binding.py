"""The ``bind`` record: which meter is in service at a metering point and how it is read. Pure."""

from __future__ import annotations

from typing import Any

from agent.metering.registers import DecodeMaps, ratio_set
from agent.metering.slots import Boundary
from config.devices import MeteringPoint, Passport, RatioPassport


def bind_fields(
    point: MeteringPoint,
    profile: str,
    boundary: Boundary,
    decode: DecodeMaps,
    swap: dict[str, Any] | None,
    lp: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fields of a ``bind`` record.

    Args:
        boundary: the first good reading of the meter that is bound.
        swap: what a person said of the exchange that led to it.
        lp: how the meter's own load profile is read, where it has one.
    """
    passport = point.passport
    fields: dict[str, Any] = {
        "device": point.device,
        "profile": profile,
        "sn": boundary.sn,
        "role": point.role,
        "owner": point.owner,
        "boundary": point.boundary,
        "node": point.node,
        "inverted": point.inverted,
        "ct": _ratio(passport.ct),
        "vt": _ratio(passport.vt),
        "ratio_applied_in": passport.ratio_applied_in,
        "ct_read": ratio_set(boundary.ratios, "ct"),
        "vt_read": ratio_set(boundary.ratios, "vt"),
        "seals": [seal.no for seal in passport.seals],
        "passport": passport_doc(passport),
        "open": {"rt": boundary.rt_ms, "reg": dict(boundary.bits), "raw": [list(f) for f in boundary.frames]},
        "pts": decode,
    }
    if lp is not None:
        fields["lp"] = lp
    return fields if swap is None else fields | {"swap": swap | {"to": boundary.rt_ms}}


def passport_doc(passport: Passport) -> dict[str, Any]:
    """The passport as it is signed: what is written in it and nothing else, dates as ISO text, fractions as text.

    Whoever reads a record can tell from it which papers were valid in a slot.
    """
    written: dict[str, Any] = _without_floats(passport.model_dump(mode="json", exclude_defaults=True))
    return written


def _without_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_floats(v) for v in value]
    return f"{value:.12g}" if isinstance(value, float) else value


def device_fields(bind: dict[str, Any]) -> str | None:
    """Transformer ratios that a ``bind`` record says the meter was set to, as they are compared."""
    parts = []
    for which in ("ct", "vt"):
        read = bind.get(f"{which}_read")
        text = "?" if read is None else str(read["num"]) if read["den"] == 1 else f"{read['num']}/{read['den']}"
        parts.append(f"{which} {text}")
    return None if all(part.endswith("?") for part in parts) else " ".join(parts)


def _ratio(passport: RatioPassport | None) -> dict[str, int]:
    return {"num": 1, "den": 1} if passport is None else {"num": passport.num, "den": passport.den}
