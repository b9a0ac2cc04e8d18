"""Acts of people about one site: made, signed by one person after the other, and read.

An act travels as a file. The first signer makes it; each further one reads it, adds a signature to the same bytes and
passes it on. The agent checks rights and persons against the register.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from grid.errors import GridError
from grid.files import read_bounded, replace_file
from wire import canonical
from wire.acts import Act, CommissioningAct, ModeAct, SpotAct, encode_act, open_act
from wire.dsse import ACT_TYPE, Envelope, seal
from wire.errors import WireError
from wire.keys import SigningKey
from wire.orders import uuid7
from wire.rollup import LOCAL

MAX_ACT_BYTES = 524_288
A = TypeVar("A", ModeAct, CommissioningAct, SpotAct)


def mode_act(
    *, site: str, epoch: str, mode: Literal["monitor", "shadow", "armed"], reason: str, now_ms: int
) -> ModeAct:
    """A step of a site's agent to another mode.

    Raises:
        GridError: a field is not what the contract allows.
    """
    doc = {"ty": "mode", "site": site, "epoch": epoch, "mode": mode, "reason": reason}
    return _build(ModeAct, doc, now_ms)


def commissioning_act(protocol: Mapping[str, Any], *, now_ms: int) -> CommissioningAct:
    """From a protocol: ``{site, epoch, outputs: [...], note?}``.

    Raises:
        GridError: a field is missing or wrong.
    """
    return _build(CommissioningAct, {**protocol, "ty": "commissioning"}, now_ms)


def spot_act(seen: Mapping[str, Any], *, now_ms: int) -> SpotAct:
    """What an inspector saw: ``{site, epoch, point, seen, display_wh, display_lsb_wh, serial?, seals?, …}``.

    Raises:
        GridError: a field is missing or wrong.
    """
    return _build(SpotAct, {**seen, "ty": "spot"}, now_ms)


def _build(model: type[A], doc: Mapping[str, Any], now_ms: int) -> A:
    body = {"v": 1, "id": uuid7(now_ms), "at": now_ms, **doc}
    try:
        return model.model_validate_json(canonical.encode(body))
    except ValidationError as error:
        first = error.errors()[0]
        raise GridError(f"act field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except WireError as error:
        raise GridError(f"act: {error}") from None


def sign_act(act: Act, key: SigningKey) -> Envelope:
    """The act with its first signature."""
    return seal(ACT_TYPE, encode_act(act), key)


def read_act(path: Path) -> tuple[Act, Envelope]:
    """An act from a file; signatures are not judged here.

    Raises:
        GridError: not an act.
    """
    try:
        return open_act(read_bounded(path, MAX_ACT_BYTES))
    except WireError as error:
        raise GridError(f"{path}: {error}") from None


def write_envelope(path: Path, envelope: Envelope) -> None:
    """Write a signed document for the next signer or the receiver."""
    replace_file(path, envelope.encode() + b"\n")


def describe_act(act: Act) -> list[tuple[str, str]]:
    """Label and value of everything that a signer must have read."""
    rows = [("site", act.site), ("epoch", act.epoch), ("act", act.ty), ("id", act.id)]
    if isinstance(act, ModeAct):
        return [*rows, ("mode", act.mode), ("reason", act.reason)]
    if isinstance(act, SpotAct):
        return [*rows, *_spot_rows(act)]
    for test in act.outputs:
        seen = f"{test.seen_w / 1000:g} of {test.expected_w / 1000:g} kW at {test.meter}, open in {test.open_ms} ms"
        rows.append((f"output {test.output}", f"{seen}, stayed open {test.stayed_open_s} s"))
        if test.others_moved:
            rows.append((f"output {test.output}", "OTHER METERS MOVED: " + ", ".join(test.others_moved)))
    if act.note:
        rows.append(("note", act.note))
    return rows


def _spot_rows(act: SpotAct) -> list[tuple[str, str]]:
    seen = datetime.fromtimestamp(act.seen / 1000, LOCAL).strftime("%Y-%m-%d %H:%M:%S")
    rows = [
        ("meter at", act.point),
        ("display", f"{act.display_wh / 1000:g} kWh"),
        ("read at", seen),
        ("serial number", act.serial or "-"),
        ("seals", ", ".join(act.seals) or "-"),
        ("photograph", act.photo_sha256 or "-"),
    ]
    return [*rows, ("note", act.note)] if act.note else rows
