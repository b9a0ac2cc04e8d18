"""What may move: the agent's mode, commissioning, tags, readiness, and the graph's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.curtailment.wear import Wear
from agent.errors import LedgerError
from agent.ledger import POSITIONS, Ledger, Txn
from agent.live import LiveState
from config.check import CheckResult
from config.fingerprint import output_fingerprint
from config.nodes import Switch
from config.site import Site
from drivers.capabilities import Position
from wire.acts import CommissioningAct, ModeAct, SpotAct, open_act
from wire.errors import BadSignature, WireError
from wire.keys import b64
from wire.registry import KeysDocument

MODES = ("monitor", "shadow", "armed")
GRID_ROLES = frozenset({"system_operator", "grid_company"})
MUST_BE = {
    "remote": (True, "switched to local control"),
    "lockout": (False, "lock-out relay operated"),
    "protection_trip": (False, "tripped by protection"),
    "trip_circuit_ok": (True, "trip circuit bad: once closed it could not be opened"),
    "spring_charged": (True, "spring not charged"),
    "control_voltage_ok": (True, "control voltage missing"),
    "service_position": (True, "not in service position"),
}
"""Readiness points and what each has to be before the agent closes a switch; a wired one that is silent is a no."""
FUTURE_MS = 60_000
SEEN_S = 15.0
"""How old a position may be that a person's word is compared with."""
MONTH_MS = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Commissioned:
    """A valid-once commissioning of one output."""

    fingerprint: str
    at: int


@dataclass(slots=True)
class Gates:
    """Asked before every output; answers with the reason when not."""

    site: Site
    ledger: Ledger
    live: LiveState
    clock: Clock
    check: CheckResult
    profile_version: Callable[[str], str]
    act_mode: str = "monitor"
    commissioned: dict[str, Commissioned] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    saon_lock: str | None = None
    unconfirmed: bool = False
    """True in the ledger of a new box until a person's eyes and the positions read agree."""
    unsafe: Callable[[str], str | None] = lambda _switch: None
    """Why the device behind an output must not be relied on now: its watchdog or safe state is set wrong, or unread."""
    darkens: Callable[[str], str | None] = lambda _switch: None
    """Why a switch must not open as the plant stands now: it feeds what must not go dark."""
    maintained: Callable[[str], str | None] = lambda _object: None
    """Why an object is left out of plans: people declared maintenance of it. Asked at every move."""
    switches: dict[str, Switch] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    wear: Wear = field(init=False)

    def __post_init__(self) -> None:
        self.wear = Wear(self.clock)
        self.live.on_switch(self.wear.heard)

    def load(self) -> None:
        """Read acts, commissioning and tags from the ledger."""
        self.switches = {n.id: n for n in self.site.nodes if isinstance(n, Switch)}
        self.fingerprints = {
            s.id: output_fingerprint(self.site, s.id, self.profile_version)
            for s in self.switches.values()
            if s.control is not None
        }
        self.wear.load(self.ledger, self.switches)
        self.act_mode = self.ledger.meta("act_mode") or "monitor"
        self.saon_lock = self.ledger.meta("saon_lock") or None
        self.unconfirmed = self.ledger.meta(POSITIONS) == "unconfirmed"
        for output, fingerprint, at in self.ledger.read_now("SELECT output, fingerprint, at FROM commissioned"):
            self.commissioned[output] = Commissioned(fingerprint, at)
        for obj, who, reason in self.ledger.read_now("SELECT object, who, reason FROM tag"):
            self.tags[obj] = f"{who}: {reason}"

    @property
    def mode(self) -> str:
        """Effective mode: the lower of what the site file asks for and what people signed."""
        return MODES[min(MODES.index(self.site.agent.mode), MODES.index(self.act_mode))]

    def unusable(self, switch_id: str) -> str | None:
        """Why this output may never or not yet be used; ``None`` if it is armed as far as papers go."""
        switch = self.switches.get(switch_id)
        if switch is None or switch.control is None:
            return "not an output"
        known = next((o for o in self.check.outputs if o.id == switch_id), None)
        if known is None or not known.usable:
            return f"refused by the site check: {known.why if known else 'unknown'}"
        if switch_id in self.tags:
            return f"tagged by {self.tags[switch_id]}"
        if (why := self.maintained(switch_id)) is not None:
            return why
        if self.unconfirmed:
            return "positions are not confirmed since this ledger began: tizgin agent confirm-positions"
        done = self.commissioned.get(switch_id)
        if done is None:
            return "not commissioned"
        if done.fingerprint != self.fingerprints.get(switch_id):
            return "commissioning lapsed: device, profile, wiring or graph changed since"
        if self.clock.now_ms() > done.at + switch.proof_test_months * MONTH_MS:
            return f"commissioning lapsed: older than {switch.proof_test_months} months"
        return self.unsafe(switch_id)

    def may_open(self, switch_id: str, *, urgent: bool = False) -> str | None:
        """Why this switch may not be opened now; ``None`` if it may.

        Args:
            switch_id: which.
            urgent: whether it opens although it should be spared (:func:`agent.curtailment.wear.urgent`).
        """
        why = self.unusable(switch_id)
        state = self.live.switches.get(switch_id)
        if why is None and state is not None:
            if state.position is Position.OPEN:
                why = "already open"
            elif state.remote is False:
                why = "switched to local control"
            elif state.trip_circuit_ok is False:
                why = "trip circuit bad"
            elif state.control_voltage_ok is False:
                why = "control voltage missing"
            elif state.service_position is False:
                why = "not in service position"
            else:
                why = self.darkens(switch_id)
        return why if why is not None or urgent else self.wear.spared(switch_id, closed=True)

    def may_close(self, switch_id: str) -> str | None:
        """Why this switch may not be closed by the agent now; ``None`` if it may. Doubt never closes."""
        switch = self.switches.get(switch_id)
        if switch is None or switch.close != "auto":
            return "closed by a person only"
        return self.why_unfit(switch_id, switch)

    def why_unfit(self, switch_id: str, switch: Switch) -> str | None:
        """Why nobody should close this switch now, the agent or a person at its word; ``None`` where nothing is in the
        way."""
        why = self.unusable(switch_id)
        if why is not None:
            return why
        if self.mode != "armed":
            return f"agent mode is {self.mode}"
        if self.saon_lock is not None:
            return "locked after САОН operation"
        state = self.live.switches.get(switch_id)
        age_s = (self.clock.mono_ns() - state.mono_ns) / 1e9 if state else 1e9
        if state is None or state.position is not Position.OPEN or age_s > 5:
            return f"position is {state.position if state else 'unknown'}, must be read open"
        for name, (good, reason) in MUST_BE.items():
            seen: bool | None = getattr(state, name)
            if seen is (not good):
                return reason
            if seen is None and getattr(switch.readiness, name) is not None:
                return f"{name} cannot be read"
        return self.wear.spared(switch_id, closed=False)

    async def take_act(self, raw: bytes, keys: KeysDocument | None) -> ModeAct | CommissioningAct:
        """Verify a signed act and make it effective, recorded verbatim as evidence.

        Raises:
            WireError: not acceptable; the message says why.
        """
        act, envelope = open_act(raw)
        if isinstance(act, SpotAct):
            raise WireError("act: kind spot needs the meter read at once: hand it in with tizgin agent spot --act")
        if keys is None:
            raise WireError("no register of persons has been received yet: the act cannot be checked")
        try:
            kids = envelope.verify(keys.verify_keys())
        except BadSignature as error:
            raise WireError(f"act: {error}") from None
        if act.site != self.ledger.site or act.epoch != self.ledger.epoch:
            raise WireError(
                f"act is for {act.site}/{act.epoch}, this is {self.ledger.site}/{self.ledger.epoch}: sign a new one"
            )
        if act.at > self.clock.now_ms() + FUTURE_MS:
            raise WireError(f"act {act.id} is dated {act.at}, in the future; check the signer's clock")
        if await self.ledger.read("SELECT 1 FROM act WHERE id=?", act.id):
            raise WireError(f"act {act.id} was already taken")
        self._check_rights(act, kids, keys)
        if isinstance(act, CommissioningAct):
            self._check_outputs(act)
        txn = Txn().record("site", "act", {"act": act.ty, "doc": b64(raw)})
        txn.run("INSERT INTO act VALUES (?,?,?,?)", act.id, act.ty, act.at, raw)
        if isinstance(act, CommissioningAct):
            for test in act.outputs:
                txn.run(
                    "INSERT INTO commissioned VALUES (?,?,?,?) ON CONFLICT (output) DO UPDATE SET "
                    "fingerprint=excluded.fingerprint, at=excluded.at, act_id=excluded.act_id",
                    test.output,
                    test.fingerprint,
                    act.at,
                    act.id,
                )
        else:
            txn.set_meta("act_mode", act.mode)
        await self.ledger.commit(txn, urgent=True)
        if isinstance(act, CommissioningAct):
            self.commissioned |= {t.output: Commissioned(t.fingerprint, act.at) for t in act.outputs}
        else:
            self.act_mode = act.mode
        return act

    async def unarm(self, switch_id: str, why: str) -> None:
        """The plant spoke against what a commissioning proved: not used until it is proven again.

        Raises:
            LedgerError: it is not durable; it binds all the same while this process runs.
        """
        if self.commissioned.pop(switch_id, None) is None:
            return
        txn = Txn().record(
            "site", "event", {"ev": "unarmed", "obj": switch_id, "now": "unarmed", "detail": {"why": why}}
        )
        await self.ledger.commit(txn.run("DELETE FROM commissioned WHERE output=?", switch_id), urgent=True)

    def _check_rights(self, act: ModeAct | CommissioningAct, kids: tuple[str, ...], keys: KeysDocument) -> None:
        right = "commission" if isinstance(act, CommissioningAct) else "mode"
        persons: set[str] = set()
        roles: set[str] = set()
        site = keys.site(self.ledger.site)
        for kid in kids:
            issuer = keys.issuer(kid)
            if issuer is None or keys.revoked_at(kid) is not None or right not in issuer.rights:
                raise WireError(f"act: key {kid} has no right to {right} (or is revoked)")
            if not issuer.valid_from <= act.at <= issuer.valid_to:
                raise WireError(f"act: key {kid} was not valid when the act was signed")
            if self.ledger.site not in issuer.sites and (site is None or site.zone not in issuer.zones):
                raise WireError(f"act: key {kid} has no right at site {self.ledger.site}")
            person = keys.person(issuer.person)
            persons.add(issuer.person)
            roles.add(person.role if person else "")
        if len(persons) < 2 and not (right == "mode" and getattr(act, "mode", "") == "monitor"):
            raise WireError(f"act: a {right} act needs two persons, signed by {', '.join(sorted(persons))}")
        if getattr(act, "mode", "") == "armed" and not ("site" in roles and roles & GRID_ROLES):
            raise WireError("act: mode armed needs a person of the site and one of the grid operator")

    def _check_outputs(self, act: CommissioningAct) -> None:
        for test in act.outputs:
            if test.fingerprint != self.fingerprints.get(test.output):
                raise WireError(
                    f"act: output {test.output}: the fingerprint is not that of the present configuration "
                    f"({self.fingerprints.get(test.output, 'no such output')})"
                )
            switch = self.switches[test.output]
            if (why := self.unsafe(test.output)) is not None:
                raise WireError(f"act: output {test.output} may not be armed: {why}")
            known = next((o for o in self.check.outputs if o.id == test.output), None)
            if known is not None and known.proved_by is not None and test.meter != known.proved_by:
                raise WireError(
                    f"act: output {test.output}: judged by meter {test.meter}, expected {known.proved_by}, "
                    "the nearest one that still speaks when it is open"
                )
            if test.expected_w == 0:
                raise WireError(f"act: output {test.output}: 0 W were expected to fall: nothing was proven")
            if test.others_moved:
                raise WireError(f"act: output {test.output}: other meters moved too ({', '.join(test.others_moved)})")
            if test.stayed_open_s < switch.reclose_guard_s:
                raise WireError(
                    f"act: output {test.output} was watched {test.stayed_open_s} s, "
                    f"re-closing needs {switch.reclose_guard_s:g} s"
                )
            if not 0.8 * test.expected_w <= test.seen_w <= 1.2 * test.expected_w:
                raise WireError(
                    f"act: output {test.output}: its meter fell by {test.seen_w} W, expected {test.expected_w} W ±20 %"
                )

    async def confirm_positions(self, who: str, opened: object) -> str:
        """A person says which outputs' switches are open (the others closed); it has to be what is read.

        Raises:
            WireError: not such a word, a position that cannot be read, or another one than was said.
        """
        if not isinstance(opened, list) or not all(isinstance(name, str) for name in opened) or not who.strip():
            raise WireError("expected a name, and a list of the switches that are open")
        outputs = {s.id for s in self.switches.values() if s.control is not None}
        if strange := sorted(set(opened) - outputs):
            moves = ", ".join(sorted(outputs))
            raise WireError(f"{strange[0][:60]}: no switch that this agent moves; it moves {moves}")
        wrong: list[str] = []
        for name in sorted(outputs):
            state, said = self.live.switches.get(name), Position.OPEN if name in opened else Position.CLOSED
            age_s = (self.clock.mono_ns() - state.mono_ns) / 1e9 if state else 1e9
            if state is None or age_s > SEEN_S or state.position not in {Position.OPEN, Position.CLOSED}:
                wrong.append(f"{name} is not read now")
            elif state.position is not said:
                wrong.append(f"{name} is read {state.position}, you say {said}")
        if wrong:
            raise WireError("; ".join(wrong) + ": nothing is armed until this is cleared up on site")
        positions = [[name, "open" if name in opened else "closed"] for name in sorted(outputs)]
        detail = {"who": who, "positions": positions}
        txn = Txn().record("site", "event", {"ev": "positions", "obj": "site", "now": "confirmed", "detail": detail})
        await self.ledger.commit(txn.set_meta(POSITIONS, "confirmed"), urgent=True)
        self.unconfirmed = False
        return f"{len(outputs)} positions are confirmed, {len(set(opened))} of them open"

    async def tag(self, obj: str, who: str, reason: str) -> None:
        """Hang a tag: the switch is not moved while it hangs.

        Raises:
            WireError: no such switch, or another person's tag hangs there already.
        """
        if obj not in self.switches:
            raise WireError(f"{obj}: no such switch in the site file")
        owner = await self._tagged_by(obj)
        if owner is not None and owner != who:
            raise WireError(f"{obj} carries the tag of {owner}: one tag per switch, and only {owner} takes it off")
        txn = Txn().record(
            "site", "event", {"ev": "tag", "obj": obj, "now": "tagged", "detail": {"who": who, "reason": reason}}
        )
        txn.run("INSERT OR REPLACE INTO tag VALUES (?,?,?,?)", obj, who, reason, self.clock.now_ms())
        before = self.tags.get(obj)
        self.tags[obj] = f"{who}: {reason}"  # binds at once: no write that is under way slips past it
        try:
            await self.ledger.commit(txn, urgent=True)
        except LedgerError:
            if before is None:
                self.tags.pop(obj, None)
            else:
                self.tags[obj] = before
            raise

    async def untag(self, obj: str, who: str) -> None:
        """Take a tag off; only who hung it.

        Raises:
            WireError: no tag, or another person's.
        """
        owner = await self._tagged_by(obj)
        if owner is None:
            raise WireError(f"no tag hangs at {obj}")
        if owner != who:
            raise WireError(f"the tag at {obj} is {owner}'s; only {owner} takes it off")
        txn = Txn().record("site", "event", {"ev": "tag", "obj": obj, "now": "removed", "detail": {"who": who}})
        txn.run("DELETE FROM tag WHERE object=?", obj)
        await self.ledger.commit(txn, urgent=True)
        self.tags.pop(obj, None)

    async def _tagged_by(self, obj: str) -> str | None:
        rows = await self.ledger.read("SELECT who FROM tag WHERE object=?", obj)
        return str(rows[0][0]) if rows else None

    async def set_saon_lock(self, reason: str | None) -> None:
        """Lock or unlock restoration after САОН operated."""
        txn = Txn().record("site", "event", {"ev": "saon_lock", "obj": "site", "now": reason or "released"})
        txn.set_meta("saon_lock", reason or "")
        if reason is not None:
            self.saon_lock = reason  # a lock binds at once, and also where it could not be written
        await self.ledger.commit(txn, urgent=True)
        self.saon_lock = reason
