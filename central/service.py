"""One central, put together: broker, collector, stores, register, relay. The API and the pages look at this."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from central.broker.child import ChildBroker
from central.collector.collector import SUBSCRIPTIONS, Collector
from central.collector.link import Address, Arrived, MqttLink
from central.collector.sorting import Sorter
from central.collector.storing import Storer
from central.errors import CentralError
from central.live import LiveState
from central.metrics import LiveGauges, Metrics
from central.paths import Paths
from central.registers import RegisterBook, registrar_keys
from central.relay import Relay
from central.renewal import Renewals
from central.store.database import Database, reason, unavailable
from central.telemetry.duck import DuckStore
from central.vee.copies import Copies
from central.vee.daily import DailyJudge
from central.vee.witnessing import VerdictWitnesses
from central.witness import Witness
from central.witnesses import WitnessRelay, broker_clients
from config.central import Central, RegisteredSite
from config.central import ChildBroker as ChildBrokerSettings
from wire.errors import BadKey, BadNote
from wire.keys import SigningKey
from wire.messages import Cosign
from wire.names import topic

log = structlog.get_logger(__name__)

REVERIFY_AGAIN_S = 5.0


def wall_ms() -> int:
    """Milliseconds since the Unix epoch (UTC)."""
    return time.time_ns() // 1_000_000


class CentralService:
    """Everything of one central that lives as long as its process."""

    def __init__(self, settings: Central, base: Path, now_ms: Callable[[], int] = wall_ms) -> None:
        self.settings = settings
        self.paths = Paths.of(settings, base)
        self.now_ms = now_ms
        self.started_ms = now_ms()
        self.sites: dict[str, RegisteredSite] = {site.id: site for site in settings.sites}
        self.live = LiveState(self.sites)
        self.metrics = Metrics()
        self.metrics.registry.register(LiveGauges(self.live, now_ms))
        self.broker: ChildBroker | None = None
        self._registrar = registrar_keys(settings.registrar_keys)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the stores, start the broker where it is ours, connect.

        Raises:
            CentralError: something is missing or not usable; what was started is stopped again.
        """
        self.paths.data_dir.mkdir(parents=True, exist_ok=True)
        url = self.settings.database_url or f"sqlite:///{self.paths.database}"
        self.database = await asyncio.to_thread(Database.open, url)
        try:
            self.telemetry = await asyncio.to_thread(DuckStore, self.paths.telemetry)
        except BaseException:
            self.database.close()
            raise
        try:
            await self._start_rest()
        except BaseException:
            await self.stop()
            raise

    async def _start_rest(self) -> None:
        self.registers = RegisterBook(self.database, self._registrar)
        await self.registers.load()
        tls = self._tls()
        settings = self.settings.broker
        if isinstance(settings, ChildBrokerSettings):
            clients = self._witness_clients()
            self.broker = ChildBroker(
                self.paths, settings.host, settings.port, self.sites, witnesses=clients, user=settings.user
            )
            await self.broker.start()
        self.relay = Relay(self.database, self._publish_order, self.metrics, self.now_ms)
        await self.relay.start()
        own_key = self._own_key()
        witness = Witness(own_key, self.registers.log_keys)
        try:
            self.witnesses = WitnessRelay(self.settings.witnesses, self._publish_cosign, self._publish_ask)
        except (BadNote, BadKey) as error:
            raise CentralError(f"witnesses: {error}; 'tizgin witness keygen' prints the key") from None
        self.witnesses.start()
        self.verdicts = VerdictWitnesses(
            self.database, self.witnesses, lambda: self.registers.document, own_key, self.now_ms
        )
        self.plausibility = DailyJudge(
            self.database,
            lambda: self.registers.document,
            own_key,
            self._base_w,
            self.now_ms,
            Copies(self.paths.verdict_copies),
            offer=self.verdicts.offer_all,
            hold=self.verdicts.hold,
        )
        self.renewals = Renewals(
            self.paths, lambda: self.registers.document, self.settings.site_certificate_days, self.now_ms
        )
        self.collector = Collector(
            self.live,
            Sorter(lambda: self.sites, self.registers.record_keys),
            Storer(self.database, self.telemetry, witness),
            self.database,
            self.telemetry,
            self.metrics,
            self.now_ms,
            on_answers=self.relay.answered,
            on_online=self.relay.site_online,
            witness=witness,
            on_checkpoint=self.witnesses.take,
            renew=self.renewals.answer,
        )
        # What a witness says may get lost (central asks again), and must not hold up acknowledgements: QoS 0.
        subscriptions = (*SUBSCRIPTIONS, *((name, 0) for name in self.witnesses.topics))
        self.link = MqttLink(lambda: self._address(tls), subscriptions, self._arrive, self._link_changed, self.now_ms)
        self.collector.link = self.link
        self.collector.start()
        self.link.start()
        self.plausibility.start()

    def _witness_clients(self) -> tuple[str, ...]:
        try:
            return broker_clients(self.settings.witnesses)
        except (BadNote, BadKey) as error:
            raise CentralError(f"witnesses: {error}; 'tizgin witness keygen' prints the key") from None

    def _arrive(self, message: Arrived) -> None:
        if self.witnesses.hears(message.topic):
            self.witnesses.arrived(message.topic, message.payload)
            self.link.acknowledge(message)
        else:
            self.collector.arrive(message)

    def _own_key(self) -> SigningKey:
        try:
            return SigningKey.from_pem(self.paths.k_col.read_bytes())
        except (OSError, BadKey) as error:
            raise CentralError(f"central's own key {self.paths.k_col}: {error}; run 'tizgin central init'") from None

    async def stop(self) -> None:
        """Stop in the order in which nothing is lost: first what arrives, then what stores, then the broker."""
        for name in ("plausibility", "relay", "witnesses", "link", "collector"):
            part = getattr(self, name, None)
            if part is not None:
                await part.stop()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.broker is not None:
            await self.broker.stop()
        await self.telemetry.close()
        await asyncio.to_thread(self.database.close)

    async def wait_connected(self, timeout_s: float = 15.0) -> None:
        """Wait until the collector is subscribed.

        Raises:
            CentralError: it is not within the time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.link.up:
            if time.monotonic() > deadline:
                host, port = self.broker_address
                raise CentralError(
                    f"no connection to the broker {host}:{port} within {timeout_s:g} s: check that it runs, and that "
                    "its certificate and the collector's come from the same authority"
                )
            await asyncio.sleep(0.02)

    @property
    def broker_address(self) -> tuple[str, int]:
        """Where sites and the collector connect."""
        if self.broker is not None:
            return self.broker.host, self.broker.port
        settings = self.settings.broker
        if isinstance(settings, ChildBrokerSettings):
            return settings.host, settings.port
        parts = urlsplit(settings.url)
        return parts.hostname or "localhost", parts.port or (8883 if parts.scheme == "mqtts" else 1883)

    def _tls(self) -> ssl.SSLContext:
        settings = self.settings.broker
        if not isinstance(settings, ChildBrokerSettings) and urlsplit(settings.url).scheme != "mqtts":
            raise CentralError(f"broker.url {settings.url!r}: expected mqtts://host:port; central speaks only over TLS")
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.paths.ca_file))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.paths.cert_file, self.paths.key_file)
        except (OSError, ssl.SSLError) as error:
            raise CentralError(
                f"TLS material {self.paths.ca_file}, {self.paths.cert_file}, {self.paths.key_file}: {error}; "
                "run 'tizgin central init'"
            ) from None
        return context

    def _address(self, tls: ssl.SSLContext) -> Address:
        host, port = self.broker_address
        return Address(host, port, tls)

    def _base_w(self, site: str) -> dict[str, int]:
        found = self.sites.get(site)
        return {point: round(kw * 1000) for point, kw in found.base_kw.items()} if found else {}

    def _publish_order(self, full_topic: str, raw: bytes, expiry_s: int) -> bool:
        return self.link.publish(full_topic, raw, retain=False, expiry_s=expiry_s)

    def _publish_ask(self, full_topic: str, payload: bytes, expiry_s: int) -> bool:
        return self.link.publish(full_topic, payload, expiry_s=expiry_s)

    def _publish_cosign(self, said: Cosign) -> None:
        self.link.publish(topic(said.site, "cosign"), said.encode())

    def _link_changed(self, up: bool) -> None:
        self.live.broker_up = up
        if up:
            self.publish_keys()

    def publish_keys(self) -> None:
        """The register in force to every site, retained."""
        if self.registers.envelope is not None:
            for site in self.sites:
                self.link.publish(topic(site, "keys"), self.registers.envelope, retain=True)

    async def take_register(self, raw: bytes) -> bool:
        """Accept a register, carry it to the sites, and judge what came before it."""
        new = await self.registers.accept(raw, self.now_ms())
        if new:
            log.info("register_accepted", version=self.registers.document.version if self.registers.document else None)
            self.publish_keys()
            task = asyncio.create_task(self._reverify(), name="reverify")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return new

    async def _reverify(self) -> None:
        while True:
            try:
                count = await self.registers.reverify(list(self.sites))
                break
            except Exception as error:
                if not unavailable(error):
                    raise
                log.error("records_not_judged", error=reason(error), retry_s=REVERIFY_AGAIN_S)
                await asyncio.sleep(REVERIFY_AGAIN_S)
        if count:
            log.info("records_judged", count=count)

    async def set_sites(self, sites: tuple[RegisteredSite, ...]) -> None:
        """Follow a changed list of registered sites."""
        self.sites = {site.id: site for site in sites}
        self.live.set_sites(self.sites)
        if self.broker is not None:
            await self.broker.set_sites(self.sites)
        self.publish_keys()
