"""What tests of the dispatcher's side share: an order, a register, a site's signed answers, a stand-in of central."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from grid.client import CentralClient
from grid.compose import compose, read_request
from grid.registrar.register import build, load_yaml
from wire.dsse import ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.names import origin
from wire.orders import Order, SignedOrder, parse_order
from wire.records import RecordLine
from wire.registry import KeysDocument

NOW = 1_795_000_000_000
SITE, EPOCH = "ekb-01", "e1-0a1b2c3d"
BASE: dict[str, Any] = {"site": SITE, "epoch": EPOCH, "action": "limit", "limit_kw": "38000"}


def order(**changes: Any) -> Order:
    fields = {k: v for k, v in {**BASE, **changes}.items() if v is not None}
    return compose(read_request(fields), now_ms=NOW, seq=7)


def signed(made: Order, *keys: SigningKey) -> SignedOrder:
    return parse_order(seal(ORDER_TYPE, made.encode(), *keys).encode())


def register_yaml(key: str, rec: str, log: str, version: int = 1) -> str:
    return f"""
version: {version}
persons:
- {{id: a, name: А. Серіков, organisation: KEGOC, role: system_operator}}
issuers:
- {{key: "{key}", person: a, rights: [limit, release], sites: [{SITE}], solo_kw: 50.5,
   valid_from: 2026-01-01, valid_to: "2027-01-01T00:00:00+05:00"}}
sites:
- {{id: {SITE}, zone: north, contracted_kw: 100000, emergency_kw: 1500, slot_s: 900,
   epochs: [{{epoch: {EPOCH}, k_rec: "{rec}", k_log: "{log}"}}]}}
"""


def make_register(tmp_path: Path, key: SigningKey, rec: SigningKey, version: int = 1) -> KeysDocument:
    (tmp_path / "r.yaml").write_text(
        register_yaml(key.public.text, rec.public.text, SigningKey.generate().public.text, version)
    )
    return build(load_yaml(tmp_path / "r.yaml"), now_ms=NOW, source="r.yaml")


class Story:
    """A dispatcher, a site and its register, for answer lines."""

    def __init__(self, tmp_path: Path) -> None:
        self.key, self.rec = SigningKey.generate(), SigningKey.generate()
        self.register = make_register(tmp_path, self.key, self.rec)
        self.order = signed(order(), self.key)

    def line(self, n: int, ty: str, fields: dict[str, Any], key: SigningKey | None = None, **over: Any) -> str:
        doc = {"v": 1, "log": origin(SITE, EPOCH), "st": "cmd", "n": n, "p": "00" * 32 if n else None, "a": None}
        doc |= {
            "ty": ty,
            "at": NOW + n,
            "mono": 1,
            "boot": "b",
            "clk": {"s": "S"},
            "fw": "1",
            "id": self.order.order.id,
        }
        return RecordLine.sign(doc | fields | over, key or self.rec).encode().decode()

    def ack(self, n: int, **over: Any) -> str:
        fields = {"state": "validated", "code": None, "text": "", "kids": [], "seq": 1}
        return self.line(n, "cmd_ack", fields | {"agent_mode": "armed", "order_mode": "live"} | over)

    def eff(self, n: int, state: str, power_w: int | None = 37_000_000, **over: Any) -> str:
        return self.line(n, "cmd_eff", {"state": state, "power_w": power_w, "flags": [], "text": ""} | over)

    def good(self) -> list[str]:
        rx = self.line(0, "cmd_rx", {"digest": self.order.digest, "raw": None, "rx": 1})
        ack = self.ack(1)
        eff = self.line(2, "cmd_eff", {"state": "holding", "power_w": 37_000_000, "flags": ["degraded"], "text": ""})
        return [rx, ack, eff]


def client(handler: Any) -> CentralClient:
    return CentralClient("http://central.test", transport=httpx.MockTransport(handler))
