"""A person reads a meter's display, and the registers are read at once: what ties the chain to the meter on the wall.

What the person says is recorded whether or not it agrees; ``diff_wh`` says by how much it does not. With a signed act
of the person it is a record signed by both sides; without one it says that it is unsigned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agent.clock import Clock
from agent.ledger import Ledger, Txn
from agent.metering.closer import SlotCloser
from agent.metering.registers import IMPORT, applied_ratio, energy_frames, whole_number
from agent.metering.slots import energy_points
from agent.metering.state import PointState
from drivers.capabilities import Sample
from drivers.modbus.scheduler import Klass
from wire.acts import SpotAct, open_act
from wire.energy import primary_wh
from wire.errors import BadKey, BadSignature, WireError
from wire.keys import unb64
from wire.registry import KeysDocument

log = structlog.get_logger()

OLDEST_MS = 3_600_000
"""How long ago the display may have been read."""
FUTURE_MS = 60_000
READ_S = 5.0
MAX_WH = 2**53 - 1
MAX_ACT = 65_536
TEXTS = {"who": 100, "organisation": 200, "role": 100}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a person says to have seen. ``display_wh`` as on the display; see :class:`wire.record_types.Spot`."""

    point: str
    who: str
    organisation: str
    role: str
    seen: int
    display_wh: int
    display_lsb_wh: int
    serial: str | None = None
    seals: tuple[str, ...] = ()
    photo_sha256: str | None = None


def read_told(doc: Mapping[str, Any]) -> Told:
    """A spot reading as it arrives in the inbox without an act.

    Raises:
        WireError: a field is missing or cannot be.
    """
    texts = {name: _text(doc, name, most) for name, most in {"point": 64, **TEXTS}.items()}
    numbers: dict[str, int] = {}
    for name, least in (("seen", 1), ("display_wh", 0), ("display_lsb_wh", 1)):
        value = doc.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_WH:
            raise WireError(f"spot: {name} is {str(value)[:40]!r}, expected a whole number from {least}")
        numbers[name] = value
    seals, photo, serial = doc.get("seals", []), doc.get("photo_sha256"), doc.get("serial")
    if (
        not isinstance(seals, list)
        or len(seals) > 32
        or not all(isinstance(s, str) and 0 < len(s) <= 60 for s in seals)
    ):
        raise WireError("spot: seals is not a list of at most 32 texts of 1 to 60 characters")
    if photo is not None and (not isinstance(photo, str) or not _SHA256.fullmatch(photo)):
        raise WireError("spot: photo_sha256 is not 64 hex digits")
    if serial is not None and (not isinstance(serial, str) or not 0 < len(serial) <= 64):
        raise WireError("spot: serial is not a text of 1 to 64 characters")
    return Told(
        texts["point"],
        texts["who"],
        texts["organisation"],
        texts["role"],
        numbers["seen"],
        numbers["display_wh"],
        numbers["display_lsb_wh"],
        serial,
        tuple(seals),
        photo,
    )


def _text(doc: Mapping[str, Any], name: str, most: int) -> str:
    value = doc.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise WireError(f"spot: {name} is {str(value)[:40]!r}, expected a text of 1 to {most} characters")
    return value.strip()


@dataclass(slots=True)
class Spots:
    """Takes spot readings while the agent runs."""

    ledger: Ledger
    closer: SlotCloser
    clock: Clock
    keys: Callable[[], KeysDocument | None]

    async def take(self, doc: Mapping[str, Any]) -> str:
        """Read the registers, record both readings; the answer for the person.

        Raises:
            WireError: not acceptable, or the meter could not be read; the message says why. Nothing was recorded.
            LedgerError: it could not be recorded.
        """
        raw = doc.get("act")
        act: SpotAct | None = None
        if raw is None:
            told = read_told(doc)
        else:
            act, told = await self._signed(raw)
        state = self.closer.states.get(told.point)
        if state is None or state.chain is None:
            known = ", ".join(name for name, s in self.closer.states.items() if s.chain is not None)
            raise WireError(f"spot: {told.point} is no metering point in service; in service are {known or 'none'}")
        self._check_time(told)
        sample = await self._read(state)
        fields = self._fields(state, told, sample) | {"act": raw}
        txn = Txn().record(f"mp:{told.point}", "spot", fields)
        if act is not None:
            txn.run("INSERT INTO act VALUES (?,?,?,?)", act.id, act.ty, act.at, unb64(str(raw), max_bytes=MAX_ACT))
        await self.ledger.commit(txn, urgent=True)
        log.info("spot", point=told.point, who=told.who, diff_wh=fields["diff_wh"], signed=act is not None)
        signed = "signed by both" if act is not None else "UNSIGNED by the person: hand in a signed act with --act"
        return f"{told.point}: registers and display differ by {fields['diff_wh'] / 1000:g} kWh; recorded, {signed}"

    async def _signed(self, raw: Any) -> tuple[SpotAct, Told]:
        """The act, and what it says; who the person is says the register.

        Raises:
            WireError: not an act of a person who may inspect this site.
        """
        keys = self.keys()
        if keys is None:
            raise WireError("no register of persons has been received yet: the act cannot be checked")
        if not isinstance(raw, str):
            raise WireError(f"spot: act is {type(raw).__name__}, expected base64 text")
        try:
            act, envelope = open_act(unb64(raw, max_bytes=MAX_ACT))
            kids = envelope.verify(keys.verify_keys())
        except (BadSignature, BadKey) as error:
            raise WireError(f"spot: act: {error}") from None
        if not isinstance(act, SpotAct):
            raise WireError(f"spot: an act of kind {act.ty}, expected spot")
        here = self.ledger.site, self.ledger.epoch
        if (act.site, act.epoch) != here:
            raise WireError(f"spot: the act is for {act.site}/{act.epoch}, this is {here[0]}/{here[1]}: sign a new one")
        if act.at > self.clock.now_ms() + FUTURE_MS:
            raise WireError(f"spot: act {act.id} is dated {act.at}, in the future; check the signer's clock")
        if await self.ledger.read("SELECT 1 FROM act WHERE id=?", act.id):
            raise WireError(f"spot: act {act.id} was already taken")
        person = inspector(keys, self.ledger.site, kids, act.at)
        told = Told(
            act.point,
            person.name[:100],
            person.organisation,
            person.role,
            act.seen,
            act.display_wh,
            act.display_lsb_wh,
            act.serial,
            act.seals,
            act.photo_sha256,
        )
        return act, told

    def _check_time(self, told: Told) -> None:
        age = self.clock.now_ms() - told.seen
        if not -FUTURE_MS <= age <= OLDEST_MS:
            raise WireError(
                f"spot: the display was read {age // 1000} s ago by our clock, expected 0 to {OLDEST_MS // 1000}: "
                "the registers have to be read right after it; read the display again"
            )

    async def _read(self, state: PointState) -> Sample:
        link, port = state.port.link, state.port
        sample = await link.read(port.device, (*port.energy, "power_w"), klass=Klass.BOUNDARY, deadline_s=READ_S)
        read = sample.readings.get(IMPORT)
        if read is None or not read.quality.usable or not energy_points(sample.bits, state.decode):
            why = "no answer" if read is None else read.quality.value
            raise WireError(f"spot: {state.point.id}: the meter could not be read ({why}); nothing was recorded")
        found = sample.readings.get("serial_number")
        serial = None if found is None or found.value is None else str(found.value)
        if serial is not None and state.sn is not None and serial != state.sn:
            raise WireError(
                f"spot: {state.point.id}: meter {serial} answers, {state.sn} is in service; see agent replace"
            )
        return sample

    @staticmethod
    def _fields(state: PointState, told: Told, sample: Sample) -> dict[str, Any]:
        chain = state.chain
        energy = primary_wh(sample.bits[IMPORT], state.decode[IMPORT])
        if chain is None or energy is None:
            raise WireError(f"spot: {told.point}: the register holds no number; nothing was recorded")
        power, factor = whole_number(sample.readings.get("power_w")), applied_ratio(state.point.passport)
        return {
            "point": told.point,
            "who": told.who,
            "organisation": told.organisation,
            "role": told.role,
            "seen": told.seen,
            "display_wh": told.display_wh,
            "display_lsb_wh": told.display_lsb_wh,
            "cfg": chain.cfg,
            "sn": told.serial,
            "rt": sample.at_ms,
            "reg": {p: b for p, b in sample.bits.items() if p in state.decode},
            "raw": [list(f) for f in energy_frames(sample.frames, state.decode)],
            "w": None if power is None else round(power * factor),
            "seals": list(told.seals),
            "photo_sha256": told.photo_sha256,
            "diff_wh": math.floor(energy) - math.floor(told.display_wh * factor),
        }


@dataclass(frozen=True, slots=True)
class Inspector:
    """The person who signed."""

    name: str
    organisation: str
    role: str


def inspector(keys: KeysDocument, site_id: str, kids: tuple[str, ...], at_ms: int) -> Inspector:
    """The one person whose keys signed, if that person may inspect here.

    Raises:
        WireError: which key may not, and why.
    """
    site = keys.site(site_id)
    persons: set[str] = set()
    for kid in kids:
        issuer = keys.issuer(kid)
        if issuer is None or keys.revoked_at(kid) is not None or "inspect" not in issuer.rights:
            raise WireError(f"spot: key {kid} has no right to inspect (or is revoked)")
        if not issuer.valid_from <= at_ms <= issuer.valid_to:
            raise WireError(f"spot: key {kid} was not valid when the act was signed")
        if site_id not in issuer.sites and (site is None or site.zone not in issuer.zones):
            raise WireError(f"spot: key {kid} has no right at site {site_id}")
        persons.add(issuer.person)
    if len(persons) != 1:
        raise WireError(f"spot: signed by {', '.join(sorted(persons)) or 'nobody'}, expected one person")
    person = keys.person(persons.pop())
    if person is None:
        raise WireError("spot: the register does not know the person who signed")
    return Inspector(person.name, person.organisation, person.role)
