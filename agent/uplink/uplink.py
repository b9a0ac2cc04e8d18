"""Both connections of a site, what they announce, and who hears what comes down."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from agent.checkpoints import Checkpointer
from agent.clock import Clock
from agent.errors import LedgerError
from agent.ledger import Ledger
from agent.outbox import BulkOutbox
from agent.tls import TlsStore
from agent.uplink.delivery import Delivery
from agent.uplink.link import Endpoint, Inbound, MqttLink, NotConnected
from agent.uplink.renewal import Renewal
from wire.errors import WireError
from wire.messages import (
    CertGrant,
    CertRequest,
    Commit,
    Cosign,
    Heads,
    Inventory,
    Live,
    Message,
    Progress,
    State,
    StreamHead,
    Want,
    decode,
)
from wire.names import topic

log = structlog.get_logger()

STATE_PERIOD_S = 10.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the announcements say about this process."""

    agent_version: str
    mode: Callable[[], str]
    simulation: bool
    config_sha256: str
    keys_version: Callable[[], int | None]
    inventory: Callable[[], Inventory | None]
    """``None`` until the devices are known to be there."""


class Uplink:
    """Owner of both links and of delivery."""

    def __init__(
        self,
        *,
        site: str,
        endpoint: Endpoint,
        tls: TlsStore,
        ledger: Ledger,
        bulk: BulkOutbox,
        clock: Clock,
        slot_s: int,
        backfill_bytes_s: float,
        facts: Facts,
        on_order: Callable[[bytes, bool], Awaitable[None]],
        on_keys: Callable[[bytes], Awaitable[None]],
        checkpointer: Checkpointer,
    ) -> None:
        self._site = site
        self._ledger = ledger
        self._bulk = bulk
        self._clock = clock
        self._slot_s = slot_s
        self._facts = facts
        self._on_order = on_order
        self._on_keys = on_keys
        self._checkpointer = checkpointer
        self._inbox: asyncio.Queue[Inbound] = asyncio.Queue(maxsize=1000)
        self._orders: asyncio.Queue[Inbound] = asyncio.Queue(maxsize=100)
        self.dropped_inbound = 0
        self.refused_inbound = 0
        self.last_commit_ns = clock.mono_ns()
        random_id = self._client_random()
        gone = self._state(online=False, at=0).encode()
        self.control = MqttLink(
            endpoint,
            f"{site}.c.{random_id}",
            subscribe=tuple(topic(site, name) for name in ("order", "commit", "want", "cosign", "keys", "cert")),
            will=(topic(site, "state"), gone),
            on_message=self._receive,
        )
        self.bulk = MqttLink(endpoint, f"{site}.b.{random_id}")
        self.delivery = Delivery(site, ledger, bulk, self.control, self.bulk, clock, slot_s, backfill_bytes_s)
        ledger.on_append(self.delivery.notify)
        self.renewal = Renewal(site, tls, endpoint, ledger, clock, (self.bulk, self.control), self._ask_renewal)

    def _client_random(self) -> str:
        """128 random bits kept with the ledger: stable over restarts, not to be guessed by others."""
        found = self._ledger.meta("client_random")
        if found is None:
            found = secrets.token_hex(16)
            self._ledger.read_now("INSERT INTO meta VALUES ('client_random', ?)", found)
        return found

    def _state(self, *, online: bool, at: int) -> State:
        return State(
            site=self._site,
            epoch=self._ledger.epoch,
            online=online,
            boot=self._ledger.boot,
            agent_version=self._facts.agent_version,
            mode=self._facts.mode(),  # type: ignore[arg-type]  # pydantic checks the literal
            simulation=self._facts.simulation,
            at=at,
        )

    async def run(self) -> None:
        """Keep both connections and everything on them going until cancelled."""
        await self.control.start()
        await self.bulk.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.delivery.run(), name="delivery")
                group.create_task(self._announce(), name="announce")
                group.create_task(self.renewal.run(), name="renewal")
                group.create_task(self._dispatch(self._orders), name="inbound-orders")
                group.create_task(self._dispatch(self._inbox), name="inbound")
        finally:
            await self.control.stop((topic(self._site, "state"), self._state(online=False, at=0).encode()))
            await self.bulk.stop()

    async def _announce(self) -> None:
        """State on connect and every ten seconds; heads and inventory on connect and each slot."""
        seen = -1
        last_slot = -1
        described = False
        while True:
            await self.control.connected.wait()
            fresh = self.control.connects != seen
            slot = self._clock.now_ms() // 1000 // self._slot_s
            try:
                if fresh:
                    self.delivery.reconnected()
                    self._checkpointer.again()
                await self.publish("state", self._state(online=True, at=self._clock.now_ms()), retain=True)
                if fresh or slot != last_slot:
                    await self.publish("heads", await self._heads())
                if fresh or slot != last_slot or not described:
                    described = await self._publish_inventory()
                seen, last_slot = self.control.connects, slot
            except (NotConnected, WireError, LedgerError) as error:
                log.info("announce_failed", error=str(error))
                await asyncio.sleep(0.5)
                continue
            await asyncio.sleep(min(STATE_PERIOD_S, max(1.0, self._slot_s / 4)) if described else 0.5)

    async def _publish_inventory(self) -> bool:
        inventory = self._facts.inventory()
        if inventory is None:
            return False
        try:
            async with asyncio.timeout(2):
                await self.bulk.connected.wait()
        except TimeoutError:
            return False
        await self.bulk.publish(topic(self._site, "inventory"), inventory.encode())
        return True

    async def _heads(self) -> Heads:
        heads = await self._ledger.heads()
        size, root = await self._ledger.head()
        return Heads(
            site=self._site,
            epoch=self._ledger.epoch,
            boot=self._ledger.boot,
            at=self._clock.now_ms(),
            streams={name: StreamHead(count=count, last=last) for name, (count, last) in heads.items()},
            log_size=size,
            log_root=root.hex(),
            config_sha256=self._facts.config_sha256,
            keys_version=self._facts.keys_version(),
            bulk_last=self._bulk.next_n - 1 if self._bulk.next_n else None,
        )

    async def publish(self, name: str, message: Message, *, retain: bool = False) -> None:
        """Publish on the control connection."""
        await self.control.publish(topic(self._site, name), message.encode(), retain=retain)

    async def _ask_renewal(self, request: CertRequest) -> None:
        await self.publish("csr", request)

    async def live(self, message: Live) -> None:
        """Publish live values, fire and forget."""
        if self.bulk.connected.is_set():
            try:
                await self.bulk.publish(topic(self._site, "live"), message.encode(), qos=0)
            except NotConnected:
                return

    async def progress(self, message: Progress) -> None:
        """Publish the progress of an order; lost when off line, the signed answers are not."""
        try:
            await self.publish("progress", message)
        except NotConnected:
            return

    def _receive(self, message: Inbound) -> None:
        queue = self._orders if message.topic.endswith("/order") else self._inbox
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped_inbound += 1
            log.error("inbound_flood", dropped=self.dropped_inbound)

    async def _dispatch(self, queue: asyncio.Queue[Inbound]) -> None:
        while True:
            message = await queue.get()
            name = message.topic.rsplit("/", 1)[-1]
            try:
                await self._take(name, message)
            except WireError as error:
                self.refused_inbound += 1
                log.warning("message_refused", name=name, error=str(error))
            except LedgerError as error:
                log.error("message_not_recorded", name=name, error=str(error))
            except Exception:  # one strange message must not stop the others
                log.exception("message_failed", name=name)

    async def _take(self, name: str, message: Inbound) -> None:
        match name:
            case "order":
                await self._on_order(message.payload, message.retained)
            case "keys":
                await self._on_keys(message.payload)
            case "commit":
                commit = decode(Commit, message.payload)
                self.last_commit_ns = self._clock.mono_ns()
                if commit.site == self._site and commit.streams:
                    await self.delivery.committed(commit)
            case "want":
                want = decode(Want, message.payload)
                if want.site == self._site:
                    await (self._checkpointer if want.stream == "log" else self.delivery).wanted(want)
            case "cosign":
                said = decode(Cosign, message.payload)
                if said.site == self._site:
                    await self._checkpointer.taken(said)
            case "cert":
                await self.renewal.take(decode(CertGrant, message.payload))
            case _:
                log.info("message_ignored", name=name, reason="not in the contract")
