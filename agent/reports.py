"""What the agent says of itself: the live message, the inventory, status and metrics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agent.acquisition import Bench
from agent.checkpoints import Checkpointer
from agent.clock import Clock
from agent.curtailment.curtailable import Now, group_w, look, power_behind
from agent.curtailment.engine import Engine
from agent.curtailment.journal import STANDING
from agent.curtailment.reception import Reception
from agent.curtailment.site_limits import SiteLimits
from agent.curtailment.standing import LOSS, PERMITTED, PLAN, RAMP
from agent.duty import Duty
from agent.ledger import Ledger
from agent.live import LiveState
from agent.maintenance import Maintenance
from agent.metering.archive import Archivist
from agent.metering.closer import SlotCloser
from agent.outbox import BulkOutbox
from agent.rotation import Rotation
from agent.saon import SaonVolume
from agent.telemetry import mining_w
from agent.uplink.uplink import Uplink
from config.devices import Device, MinerGroup
from config.site import Site
from drivers.modbus.relay.safety import SafeStatus
from wire.messages import Inventory, InventoryDevice, Live

MAX_ALARMS = 200
LOOK_S = 5.0
"""All machines of a large site are looked at this seldom for what is curtailable; the meters are read far oftener."""


@dataclass(slots=True)
class Reports:
    """Reads everything, changes nothing."""

    site: Site
    ledger: Ledger
    bulk: BulkOutbox
    bench: Bench
    values: LiveState
    engine: Engine
    reception: Reception
    closer: SlotCloser
    uplink: Uplink
    groups: dict[str, MinerGroup]
    clock: Clock
    checkpointer: Checkpointer
    rotation: Rotation
    maintenance: Maintenance
    duty: Duty
    archivist: Archivist
    _looked: Now | None = field(default=None, init=False)

    async def watch(self) -> None:
        """Look at what is curtailable until cancelled."""
        while True:
            self._looked = await look(self.site, self.engine.fleet, self.engine.gates, self.values)
            await asyncio.sleep(LOOK_S)

    def _unavailable(self) -> dict[str, int | None]:
        """Power behind each switch and group that is in declared maintenance."""
        fleet = self.engine.fleet
        groups = {g.id for g in self.site.miners}
        found: dict[str, int | None] = {}
        for work in self.maintenance.active():
            if work.object in groups:
                found[work.object] = group_w(self.values, work.object)
            else:
                found[work.object] = power_behind(fleet, self.values, work.object)
        return found

    def _serial(self, device: Device) -> str | None:
        seen = self.values.reading(device.id, "serial_number").value
        return device.serial_number if seen is None else str(seen)

    def live(self) -> Live:
        """The ``live`` message."""
        now_ns = self.clock.mono_ns()
        measured = self.site.measured_at
        names = [p.id for p in self.site.metering_points] + [v.id for v in self.site.virtual_points]
        powers = {name: self.values.power(name) for name in names}
        awake = sum(1 for m in self.values.miners.values() if m.status and (m.status.hashrate_ths or 0) > 0)
        asleep = sum(1 for m in self.values.miners.values() if m.status and m.status.sleeping)
        seen = self._looked
        active = next((o.id for o in self.engine.journal.live.values() if o.order.sheds), None)
        return Live(
            site=self.site.site.id,
            epoch=self.ledger.epoch,
            boot=self.ledger.boot,
            at=self.clock.now_ms(),
            net_w=powers[measured.net_import].value_w,
            mining_w=mining_w(self.values, self.groups),
            limit_w=self.engine.limit_w(measured.net_import),
            order=active,
            points={n: p.value_w for n, p in powers.items()},
            ages_ms={
                n: max(0, round(p.age_s(now_ns) * 1000))
                for n, p in (*powers.items(), ("net_w", powers[measured.net_import]))
                if p.mono_ns
            },
            asics_total=len(self.bench.machines),
            asics_hashing=awake,
            asics_sleeping=asleep,
            switches={n: s.position.value for n, s in self.values.switches.items()},
            alarms=tuple(sorted(self.alarms()))[:MAX_ALARMS],
            curtailable=seen.total if seen else None,
            outputs_w=seen.outputs_w if seen else {},
            outputs_why=seen.why if seen else {},
            unavailable=self._unavailable(),
            saon_w={
                str(stage): watts
                for stage, watts in SaonVolume(self.site, self.engine.fleet, self.values).now().items()
            },
        )

    def alarms(self) -> set[str]:
        """Names of what is wrong now."""
        found: set[str] = set()
        if not self.clock.synchronised():
            found.add("clock_unsynchronised")
        if self.ledger.failing or self.bulk.failing:
            found.add("storage")
        if any("orphaned" in o.flags for o in self.engine.journal.live.values()):
            found.add("orphaned")
        if self.engine.gates.saon_lock:
            found.add("saon_lock")
        if self.engine.gates.unconfirmed:
            found.add("positions_unconfirmed")
        self._add_log_alarms(found)
        found |= standing_alarms(self.engine.standing)
        found |= self.uplink.renewal.alarms() | self.rotation.alarms()
        for name, link in self.bench.links.items():
            if link.stats.second_master:
                found.add(f"second_master:{name}")
        for name, relay in self.bench.relays.items():
            if relay.safe_state().status is SafeStatus.WRONG:
                found.add(f"safe_state:{name}")
        for meter in self.bench.meters:
            if (
                meter in self.values.samples
                and not self.values.device_alive(meter)
                and meter not in self.closer.dark_since
            ):
                found.add(f"meter_silent:{meter}")
        return self.maintenance.grouped(found) | self._declared()

    def _declared(self) -> set[str]:
        """Alarms that no maintenance explains: what the site owes, and what people said or should have said."""
        found: set[str] = set()
        for stage in SaonVolume(self.site, self.engine.fleet, self.values).short():
            found.add(f"saon_volume:{stage}")
        for work in self.maintenance.active():
            found.add(f"maintenance:{work.object}")
        for name in self.maintenance.unhealthy_now():
            found.add(f"maintenance_unhealthy:{name}")
        for order in self.duty.overdue():
            found.add(f"order_unacknowledged:{order}")
        return found

    def _add_log_alarms(self, found: set[str]) -> None:
        if self.checkpointer.counters.split:
            found.add("log_split")
        if self.checkpointer.unsigned is not None:
            found.add("log_key_unavailable")

    def inventory(self) -> Inventory:
        """What the site says it has."""
        devices = tuple(
            InventoryDevice(
                id=d.id,
                kind=d.kind,
                profile=d.profile,
                serial=self._serial(d),
                address=next((link.url for link in self.site.links if link.id == d.link), None),
            )
            for d in self.site.devices
        )
        counts: dict[str, int] = {}
        for machine in self.bench.machines.values():
            counts[machine.group.id] = counts.get(machine.group.id, 0) + 1
        return Inventory(
            site=self.site.site.id,
            epoch=self.ledger.epoch,
            at=self.clock.now_ms(),
            devices=devices,
            miner_groups=counts,
            metering_points=tuple(p.id for p in self.site.metering_points),
            measured_at=self.site.measured_at.net_import,
            contracted_w=round(self.site.site.contracted_kw * 1000),
            emergency_w=self.engine.emergency_w(),
            outputs={s: self.engine.gates.unusable(s) is None for s in self.engine.fleet.switches},
        )

    def status(self) -> dict[str, Any]:
        """For ``/healthz`` and ``tizgin agent status``."""
        silent = [m for m in self.bench.meters if not self.values.device_alive(m)]
        return {
            "ok": self.ledger.failing is None and self.bulk.failing is None,
            "storage": self.ledger.failing or self.bulk.failing,
            "site": self.site.site.id,
            "epoch": self.ledger.epoch,
            "mode": self.engine.gates.mode,
            "connected": self.uplink.control.connected.is_set(),
            "net_w": self.values.power(self.site.measured_at.net_import).value_w,
            "meters_silent": silent,
            "slot": self.closer.newest_slot(),
            "metering": self.archivist.methods(),
            "orders": {o.id: {"state": o.state, "flags": sorted(o.flags)} for o in self.engine.journal.live.values()},
            "held": len(self.engine.journal.held),
            "standing": {"state": self.engine.standing.state, "held": len(self.engine.journal.held_by(STANDING))},
            "outputs": {s: self.engine.gates.unusable(s) for s in self.engine.fleet.switches},
            "alarms": sorted(self.alarms()),
            "maintenance": {w.object: {"until": w.until_ms, "who": w.who} for w in self.maintenance.active()},
            "unacknowledged": self.duty.unacknowledged(),
            "broker_error": self.uplink.control.last_error,
            "certificate": self.uplink.renewal.status(),
            "key_change": self.rotation.status(),
            "log_key": self.checkpointer.status(),
        }

    def figures(self) -> dict[str, float]:
        """For ``/metrics``."""
        delivery = self.uplink.delivery.counters
        power = self.values.power(self.site.measured_at.net_import)
        found: dict[str, float] = {
            "connected": float(self.uplink.control.connected.is_set()),
            "evidence_sent_total": delivery.evidence_sent,
            "evidence_confirmed_total": delivery.evidence_confirmed,
            "bulk_sent_total": delivery.bulk_sent,
            "bulk_confirmed_total": delivery.bulk_confirmed,
            "bulk_rows_total": self.bulk.rows,
            "bulk_values_total": self.bulk.cells,
            "bulk_refused_total": self.bulk.refused,
            "strange_commits_total": delivery.strange_commits,
            "inbound_refused_total": self.uplink.refused_inbound,
            "inbound_dropped_total": self.uplink.dropped_inbound,
            "slots_unwritten_total": self.closer.unwritten,
            "slots_from_profile_total": self.archivist.written,
            "orders_live": len(self.engine.journal.live),
            "orders_refused_total": sum(self.reception.refused.values()),
            "held": len(self.engine.journal.held),
            "machines": len(self.bench.machines),
            "machines_answering": sum(1 for m in self.values.miners.values() if m.status is not None),
            "machine_polls_answered_total": sum(p.counters.answered for p in self.bench.pollers),
            "clock_synchronised": float(self.clock.synchronised()),
            "certificates_renewed_total": self.uplink.renewal.counters.renewed,
            "certificates_refused_total": self.uplink.renewal.counters.refused,
            "certificates_unasked_total": self.uplink.renewal.counters.unasked,
        }
        if (identity := self.uplink.renewal.identity) is not None:
            found["certificate_seconds_left"] = (identity.ends - self.uplink.renewal.now()).total_seconds()
        if power.value_w is not None:
            found["net_watts"] = power.value_w
        for link in self.bench.links.values():
            found[f"link_{link.name.replace('-', '_').replace('.', '_')}_busy_share"] = link.busy_share
        return found


def standing_alarms(standing: SiteLimits) -> set[str]:
    """Standing limits of the connection that are near, exceeded or at work, and load that went by itself."""
    found: set[str] = set()
    told = standing.warnings()
    if (PERMITTED, "over") in told:
        found.add("permitted_power")
    if (PERMITTED, "near") in told:
        found.add("near_permitted_power")
    if (PLAN, "over") in told:
        found.add("hourly_plan")
    if (PLAN, "near") in told:
        found.add("near_hourly_plan")
    if told & {(RAMP, "over"), (LOSS, "over")}:
        found.add("ramp_up")
    if standing.state != "idle":
        found.add("standing_limit")
    if standing.lately_lost():
        found.add("load_loss")
    return found
