"""The site's certificate is renewed without a person: asked for in time, checked, tried, and only then in force.

A new key is made for each certificate. What comes down is believed by the authority's signature alone; whatever else is
wrong with it changes nothing and is told. A certificate that passed is first shown to the broker by the bulk
connection, then by the control connection; where the broker refuses it while the old one still works, it is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent import tls
from agent.clock import Clock
from agent.errors import AgentError, LedgerError
from agent.ledger import Ledger, Txn
from agent.tls import Identity, TlsStore
from agent.uplink.link import Endpoint, MqttLink, NotConnected
from wire.keys import b64
from wire.messages import CertGrant, CertRequest

log = structlog.get_logger()

LOOK_S = 60.0
ASK_S = 3600.0
CONNECT_S = 15.0
GRANTS_PER_MIN = 20
"""Grants that are looked at; a flood of them costs no more."""
ASKED = "tls_asked"


@dataclass(slots=True)
class Counters:
    """For status and alarms."""

    asked: int = 0
    renewed: int = 0
    refused: int = 0
    """Grants that were not what was asked for, and certificates that the broker did not take."""
    unasked: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class Renewal:
    """Owner of the site's TLS identity while the agent runs.

    Args:
        site: id of the site.
        store: its files.
        endpoint: where the broker is; its files are replaced by those in force.
        ledger: signs the request; remembers when one was made.
        clock: the agent's clock.
        links: connections in the order in which they try a new certificate; the last one asks.
        publish: sends to topic ``csr``.
    """

    site: str
    store: TlsStore
    endpoint: Endpoint
    ledger: Ledger
    clock: Clock
    links: tuple[MqttLink, ...]
    publish: Callable[[CertRequest], Awaitable[None]]
    counters: Counters = field(default_factory=Counters)
    identity: Identity | None = None
    _kick: asyncio.Event = field(default_factory=asyncio.Event)
    _judged: list[int] = field(default_factory=list)

    def now(self) -> datetime:
        """Wall clock."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    def alarms(self) -> set[str]:
        """What is wrong with the certificate."""
        ends = self.identity.alarm(self.now()) if self.identity is not None else None
        found = set() if ends is None else {ends}
        return found | ({"certificate_refused"} if self.counters.last_error is not None else set())

    def status(self) -> dict[str, str | int | None]:
        """For ``tizgin agent status``."""
        identity = self.identity
        return {
            "file": None if identity is None else str(identity.cert_file),
            "ends": None if identity is None else identity.ends.isoformat(),
            "days_left": None if identity is None else (identity.ends - self.now()).days,
            "renewed": self.counters.renewed,
            "refused": self.counters.refused,
            "error": self.counters.last_error,
        }

    async def run(self) -> None:
        """Look now and then, and when something came. Until cancelled."""
        while True:
            try:
                await self._round()
            except (NotConnected, TimeoutError):
                pass
            except (AgentError, LedgerError, OSError) as error:
                self.counters.last_error = str(error)
                log.error("certificate_not_renewed", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._kick.wait()
            self._kick.clear()

    async def _round(self) -> None:
        self.identity = await asyncio.to_thread(self.store.in_force)
        found = await asyncio.to_thread(self.store.candidate)
        if found is not None:
            # Where the old one works, but the broker is away, a try would say nothing.
            if self.links[-1].connected.is_set() or self.identity.ends <= self.now():
                await self._try(self.identity, found)
            return
        if not self.identity.due(self.now()):
            return
        async with asyncio.timeout(LOOK_S):
            await self.links[-1].connected.wait()
        now = self.clock.now_ms()
        rows = await self.ledger.read("SELECT value FROM meta WHERE key = ?", ASKED)
        since_ms = now - int(rows[0][0]) if rows else None
        # A time from the future was written under a wrong clock.
        if since_ms is None or since_ms < 0 or since_ms >= ASK_S * 1000:
            await self.ledger.commit(Txn().set_meta(ASKED, str(now)))
            await self._ask(self.identity)

    async def _ask(self, current: Identity) -> None:
        request = await asyncio.to_thread(self._request, current)
        await self.publish(request)
        self.counters.asked += 1
        log.info("certificate_asked_for", ends=current.ends.isoformat())

    def _request(self, current: Identity) -> CertRequest:
        own = tls.private_key(current.key_file)
        key = self.store.make_pending()
        if tls.public_bytes(key.public_key()) == tls.public_bytes(own.public_key()):
            # A crash left the key of the certificate that is in use by now.
            self.store.drop()
            key = self.store.make_pending()
        bare = CertRequest(
            site=self.site,
            epoch=self.ledger.epoch,
            at=self.clock.now_ms(),
            csr=tls.make_request(key, self.site),
            cert=current.certificate.public_bytes(serialization.Encoding.PEM).decode(),
            kid=self.ledger.key.kid,
            sig="",
            sig_tls="",
        )
        message = bare.signed()
        return bare.model_copy(
            update={
                "sig": b64(self.ledger.key.sign(message)),
                "sig_tls": b64(own.sign(message, ec.ECDSA(hashes.SHA256()))),
            }
        )

    async def take(self, grant: CertGrant) -> None:
        """Something came on topic ``cert``: keep it if it is what was asked for, else say what is wrong with it."""
        now_ns = self.clock.mono_ns()
        self._judged = [at for at in self._judged if now_ns - at < 60e9]
        if grant.site != self.site or len(self._judged) >= GRANTS_PER_MIN:
            self.counters.unasked += 1
            return
        self._judged.append(now_ns)
        key = await asyncio.to_thread(self.store.pending)
        if key is None:
            self.counters.unasked += 1
            log.warning("certificate_not_asked_for", count=self.counters.unasked)
            return
        if grant.cert is None:
            self._refused(f"central refuses to renew the certificate ({grant.error}): {grant.text}")
            return
        try:
            current = await asyncio.to_thread(self.store.in_force)
            found = tls.judge(
                grant.cert,
                site=self.site,
                key=key.public_key(),
                authorities=await asyncio.to_thread(self.store.authorities),
                now=self.now(),
                ends=current.ends,
            )
            await asyncio.to_thread(self.store.keep, found)
        except (AgentError, OSError) as error:
            self._refused(f"the certificate that central sent is not used: {error}")
            return
        self._kick.set()

    def _refused(self, why: str) -> None:
        self.counters.refused += 1
        if why != self.counters.last_error:
            log.error("certificate_refused", why=why)
        self.counters.last_error = why

    async def _try(self, current: Identity, new: Identity) -> None:
        """Connect with the new identity, one connection after the other; back to the old one where it is refused."""
        done: list[MqttLink] = []
        for link in self.links:
            done.append(link)
            await link.use(self._with(new))
            if await self._connects(link):
                continue
            why = link.last_error or f"no connection within {CONNECT_S:g} s"
            for changed in reversed(done):
                await changed.use(self._with(current))
            if not await self._connects(link):
                return  # neither works: the broker is away, nothing is known of the certificate
            await asyncio.to_thread(self.store.drop)
            self._refused(f"the broker did not take the new certificate: {why}")
            return
        await asyncio.to_thread(self.store.accept)
        self.identity = await asyncio.to_thread(self.store.in_force)
        until = new.ends.isoformat()
        log.info("certificate_renewed", ends=until)
        detail = {"serial": f"{new.certificate.serial_number:x}", "ends": until}
        fields = {"ev": "certificate", "obj": self.site, "now": "renewed", "detail": detail}
        await self.ledger.commit(Txn().record("site", "event", fields))
        self.counters.renewed += 1
        self.counters.last_error = None

    def _with(self, identity: Identity) -> Endpoint:
        return replace(self.endpoint, cert_file=str(identity.cert_file), key_file=str(identity.key_file))

    @staticmethod
    async def _connects(link: MqttLink) -> bool:
        try:
            async with asyncio.timeout(CONNECT_S):
                await link.connected.wait()
        except TimeoutError:
            return False
        return True
