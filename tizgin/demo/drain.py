"""Delivers what a stopped agent still holds: the end of its telemetry and the record of its stop.

``python -m tizgin.demo.drain SITE.yaml`` opens the agent's ledger and outbox, adds nothing to them, and runs the
agent's own uplink until central has confirmed everything. In production the agent's next start does this; the demo has
no next start and counts both sides to the last value.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from pathlib import Path

import structlog

from agent.clock import SystemClock
from agent.identity import load_keys
from agent.ledger import Ledger
from agent.outbox import BulkOutbox
from agent.uplink.link import Endpoint
from agent.uplink.uplink import Facts, Uplink
from config.loader import load_site
from tizgin import __version__
from wire.messages import Inventory

WITHIN_S = 12.0
POLL_S = 0.1


async def drain(config: Path, *, within_s: float = WITHIN_S) -> int:
    """Deliver; returns how many records and batches central has still not confirmed.

    Raises:
        AgentError: the agent still runs, or its files cannot be used.
        ValueError: the site file has no uplink.
    """
    site = load_site(config)
    if site.uplink is None:
        raise ValueError(f"{config}: no uplink")
    base = config.parent
    state, clock = base / site.agent.state_dir, SystemClock(site.agent.clock_source)
    fw = f"tizgin/{__version__}"
    ledger = Ledger.open(state / "ledger.db", site=site.site.id, key=load_keys(state).rec, clock=clock, fw=fw)
    bulk = BulkOutbox(state / "bulk.db", boot=ledger.boot, max_bytes=site.agent.bulk_max_mb * 1024 * 1024)
    try:
        ledger.start()
        facts = Facts(
            agent_version=fw,
            mode=lambda: "monitor",
            simulation=site.site.simulation,
            config_sha256="",
            keys_version=lambda: None,
            inventory=lambda: Inventory(site=site.site.id, epoch=ledger.epoch, at=clock.now_ms()),
        )
        uplink = Uplink(
            site=site.site.id,
            endpoint=Endpoint(
                site.uplink.broker,
                str(base / site.uplink.ca_file),
                str(base / site.uplink.cert_file),
                str(base / site.uplink.key_file),
            ),
            ledger=ledger,
            bulk=bulk,
            clock=clock,
            slot_s=site.agent.slot_s,
            backfill_bytes_s=site.uplink.backfill_kbit_s * 125,
            facts=facts,
            on_order=_refuse,
            on_keys=_ignore,
        )
        running = asyncio.create_task(uplink.run(), name="uplink")
        try:
            return await _until_empty(ledger, bulk, running, within_s)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    finally:
        await bulk.close()
        await ledger.close()


async def _until_empty(ledger: Ledger, bulk: BulkOutbox, running: asyncio.Task[None], within_s: float) -> int:
    end = time.monotonic() + within_s
    while True:
        records = (await ledger.read("SELECT count(*) FROM record WHERE committed = 0"))[0][0]
        left = int(records) + (await bulk.backlog())[0]
        if not left or running.done() or time.monotonic() > end:
            return left
        await asyncio.sleep(POLL_S)


async def _refuse(_raw: bytes, _retained: bool) -> None:
    """Nothing here could carry out an order; central sends it again to the agent."""


async def _ignore(_raw: bytes) -> None:
    """The register belongs to the agent."""


def main() -> int:
    """Entry point: 0 when nothing is left."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    left = asyncio.run(drain(Path(sys.argv[1]).resolve()))
    if left:
        sys.stderr.write(f"{left} records and batches are not confirmed by central\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
