"""Papers, inspectors, spot readings and balances for evidence bundles made by hand; see :mod:`bundle_kit`."""

from __future__ import annotations

import math
from typing import Any

from bundle_kit import EPOCH, IMPORT, MAP, SITE, SLOT, START, Doc, Site, f32, frames

from wire import canonical
from wire.acts import SpotAct, encode_act
from wire.dsse import ACT_TYPE, seal
from wire.energy import primary_wh
from wire.keys import SigningKey, b64

READING_TYPE = "application/vnd.tizgin.reading.v1+json"
PAPERS: Doc = {
    "meter_serial": "A1",
    "accuracy_class": "0.5S",
    "expires": "2030-01-01",
    "ct": {"num": 600, "den": 5, "accuracy_class": "0.5S", "expires": "2030-01-01"},
    "ratio_applied_in": "agent",
    "ratio_checked": {"date": "2026-01-15", "by": "A. Serik"},
    "seals": [{"no": "0012"}],
}
"""Everything that makes a metrological status valid."""
ACT_ID = "01912345-0000-7000-8000-0000000000a1"


def enrol(site: Site, key: SigningKey, *, role: str = "regulator", **changes: Any) -> None:
    """Write a person into the register who may inspect the site."""
    person = {"id": f"p-{key.kid}", "name": "Б. Инспектор", "organisation": "КЭР", "role": role}
    site.register["persons"].append(person)
    valid = {"valid_from": (START - 86_400) * 1000, "valid_to": (START + 400 * 86_400) * 1000}
    issuer = {"kid": key.kid, "key": key.public.text, "person": person["id"], "rights": ["inspect"], "sites": [SITE]}
    site.register["issuers"].append(issuer | valid | changes)


def papers(site: Site, point: str = "M1", **changes: Any) -> None:
    """Give a metering point its papers."""
    site.streams[f"mp:{point}"][0]["passport"] = PAPERS | changes


def spot(site: Site, key: SigningKey | None, *, after: int = 4, point: str = "M1", **changes: Any) -> Doc:
    """A spot reading in the slot after the so-many-th one, where it belongs in the stream; the record."""
    docs = site.streams[f"mp:{point}"]
    place = next(i for i, doc in enumerate(docs) if doc.get("t1") == START + after * SLOT) + 1
    before, later = docs[place - 1], docs[place]
    low, high = before["reg"][IMPORT][1], later["reg"][IMPORT][1]
    energy = (primary_wh(low, MAP) or 0) + ((primary_wh(high, MAP) or 0) - (primary_wh(low, MAP) or 0)) / 3
    bits = f32(float(energy) / 1000)
    primary = primary_wh(bits, MAP) or 0
    factor = 120
    rt = (START + after * SLOT + SLOT // 3) * 1000
    display = math.floor(primary / factor) if "display_wh" not in changes else changes["display_wh"]
    told = {"point": point, "seen": rt - 2000, "display_wh": display, "display_lsb_wh": 10}
    told |= {"seals": ["0012"], "photo_sha256": "ab" * 32}
    act = None
    if key is not None:
        body = {"v": 1, "ty": "spot", "id": ACT_ID, "site": SITE, "epoch": EPOCH, "at": rt - 1000, "serial": "A1"}
        act = b64(seal(ACT_TYPE, encode_act(SpotAct.model_validate_json(canonical.encode(body | told))), key).encode())
    site.add(f"mp:{point}", "spot", rt / 1000 + 1, {})
    record = docs.pop()
    record |= told | {"who": "Б. Инспектор", "organisation": "КЭР", "role": "regulator", "cfg": "BIND", "sn": "A1"}
    record |= {"rt": rt, "reg": {IMPORT: bits}, "raw": frames(bits, 0), "w": None, "act": act}
    record |= {"diff_wh": math.floor(primary) - display * factor} | changes
    docs.insert(place, record)
    return record


def reading(key: SigningKey, **changes: Any) -> bytes:
    """The system operator's own reading, signed."""
    body = {"v": 1, "site": SITE, "point": "M1", "from": START, "to": START + SLOT, "wh": 0, "source": "ASKUE"}
    return seal(READING_TYPE, canonical.encode(body | changes), key).encode()


def balance(site: Site, slot: int, **changes: Any) -> Doc:
    """A balance of M1 against M2 in one slot, true to their intervals."""
    t0 = START + slot * SLOT
    net = {}
    for point in ("M1", "M2"):
        doc = next(d for d in site.streams[f"mp:{point}"] if d.get("t0") == t0 and d["ty"] in {"interval", "gap"})
        net[point] = doc["wh"] - (doc["exp_wh"] or 0) if doc["ty"] == "interval" else None
    known = None not in net.values()
    main, feeders = net["M1"], net["M2"]
    body: Doc = {
        "t0": t0, "t1": t0 + SLOT, "main": ["M1"], "transit": [], "feeders": ["M2"], "main_wh": main,
        "feeders_wh": feeders, "loss_wh": 90 if known else None,
        "residual_wh": main - feeders - 90 if main is not None and feeders is not None else None,
        "tol_wh": 10_000 if known else None, "loss_id": "00112233aabbccdd",
        "missing": [name for name, wh in net.items() if wh is None],
        "asic": [{"mp": "M2", "seen": 1, "expected": 2, "wh": 3000}],
    }  # fmt: skip
    site.add("bal", "balance", t0 + SLOT + 2, body | changes)
    return site.streams["bal"][-1]
