"""Orders of one site over its broker, and the site's signed answers, with the moment each was heard.

Central is left out of the way of an order: what is measured is the agent. Every answer that is counted was verified
against the register, as a dispatcher's desk does it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client

from benchmarks.order_sides.broker import Identity
from benchmarks.order_sides.plant import Plant
from grid.compose import compose, read_request
from grid.keystore import load_key, read_public
from grid.ordering import current_epoch
from grid.registrar.register import load_register
from grid.story import Story, tell
from tizgin.demo.plan import Plan
from tizgin.demo.register import GRID_COMPANY, SYSTEM_OPERATOR
from wire.dsse import ORDER_TYPE, seal
from wire.errors import BadRecord
from wire.names import topic
from wire.orders import SignedOrder, parse_order
from wire.records import parse_line

LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Line:
    """One record line as it came."""

    heard_ns: int
    ty: str
    state: str | None
    text: str
    rx_ms: int | None
    """Of ``cmd_rx``: the site's wall clock when the order came."""


@dataclass(slots=True)
class Dispatcher:
    """Two persons' keys and one site. :meth:`hear` is for the client's thread, everything else for one other."""

    plant: Plant
    plan: Plan
    client: Client | None = None
    heard: deque[tuple[int, bytes]] = field(default_factory=deque)
    lines: dict[str, list[Line]] = field(default_factory=dict)
    """Order → what the site said of it; re-sent lines once each."""
    _seq: int = field(default_factory=lambda: int(time.time()))
    _seen: set[str] = field(default_factory=set)

    def hear(self, _topic: str, payload: bytes, at_ns: int) -> None:
        """A message on the site's topic of answers."""
        self.heard.append((at_ns, payload))

    def collect(self) -> None:
        """Sort what was heard by order."""
        while self.heard:
            at_ns, payload = self.heard.popleft()
            for raw in payload.split(b"\n"):
                text = raw.decode()
                if not raw or text in self._seen:
                    continue
                self._seen.add(text)
                try:
                    _, doc = parse_line(raw)
                except BadRecord as error:
                    raise RuntimeError(f"{self.plan.id} said what is no record line: {error}") from None
                found = Line(at_ns, doc["ty"], doc.get("state"), text, doc.get("rx"))
                self.lines.setdefault(str(doc.get("id")), []).append(found)

    def order(self, *, persons: int = 1, **fields: Any) -> SignedOrder:
        """A signed order; its time begins now."""
        register = load_register(self.plant.folder.register, [read_public(self.plant.registrar_key)])
        return self.orders([fields], persons=persons, epoch=current_epoch(register, self.plan.id))[0]

    def orders(self, many: list[dict[str, Any]], *, persons: int = 1, epoch: str) -> list[SignedOrder]:
        """Signed orders with rising numbers; ``supersedes: True`` means the one before."""
        keys = [load_key(self.plant.key_file(p), environment={}) for p in (SYSTEM_OPERATOR, GRID_COMPANY)[:persons]]
        made: list[SignedOrder] = []
        for fields in many:
            body = {"site": self.plan.id, "epoch": epoch, "basis_code": "benchmark", **fields}
            if body.get("supersedes") is True:
                body["supersedes"] = made[-1].order.id
            self._seq += 1
            order = compose(read_request(body), now_ms=time.time_ns() // 1_000_000, seq=self._seq)
            made.append(parse_order(seal(ORDER_TYPE, order.encode(), *keys).encode()))
        return made

    def send(self, signed: SignedOrder) -> int:
        """Hand an order to the broker's socket; the moment before, monotonic ns."""
        assert self.client is not None
        at = time.monotonic_ns()
        self.client.publish(topic(self.plan.id, "order"), signed.raw, qos=1)
        return at

    def first(self, signed: SignedOrder, ty: str, *states: str) -> Line | None:
        """The first line of a type, and of these states if any are named, about an order."""
        lines = self.lines.get(signed.order.id, ())
        return next((line for line in lines if line.ty == ty and (not states or line.state in states)), None)

    def wait(self, signed: SignedOrder, ty: str, *states: str, within_s: float) -> Line:
        """Wait for such a line.

        Raises:
            RuntimeError: it does not come in time.
        """
        end = time.monotonic() + within_s
        while True:
            self.collect()
            if (found := self.first(signed, ty, *states)) is not None:
                return found
            if time.monotonic() > end:
                said = [f"{line.ty} {line.state}: {line.text[:600]}" for line in self.lines.get(signed.order.id, ())]
                raise RuntimeError(
                    f"{self.plan.id} {signed.order.action}: no signed {ty} {'/'.join(states)} within {within_s:g} s; "
                    f"the site said: {said[-1] if said else 'nothing'}"
                )
            time.sleep(LOOK_S)

    def story(self, signed: SignedOrder) -> Story:
        """What is proven of an order.

        Raises:
            RuntimeError: an answer does not verify.
        """
        register = load_register(self.plant.folder.register, [read_public(self.plant.registrar_key)])
        story = tell(signed, [line.text for line in self.lines.get(signed.order.id, ())], register)
        if story.refused:
            raise RuntimeError(f"{self.plan.id}: an answer does not verify: {story.refused[0].why}")
        return story


def collector(plant: Plant) -> Identity:
    """Who may write orders to the broker and read answers there."""
    pki = plant.folder.central_data / "pki"
    return Identity(plant.broker_port, str(pki / "ca.pem"), str(pki / "collector.pem"), str(pki / "collector.key"))
