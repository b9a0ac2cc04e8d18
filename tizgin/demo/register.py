"""The register of the demo as a person would write it: who may order what, and the sites with their keys.

Plain data for ``tizgin registrar sign``: power in W, times as dates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tizgin.demo.plan import Plan
from tizgin.demo.sites import SLOT_S, ZONE

ORDERS = ("limit", "reduce", "stop", "open_feeders", "release", "extend", "cancel", "emergency_trip")
SOLO_TIMES = 5
"""One dispatcher alone may shed so many times the contracted power of the largest site in ten minutes: what was shed
lately counts, and a demo is there to be played with."""
SYSTEM_OPERATOR, GRID_COMPANY = "so-duty", "gc-duty"


def engineer_of(site: str) -> str:
    """Id of the chief engineer of a site."""
    return f"chief-{site}"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a site's enrolment said: its epoch and public keys (base64)."""

    epoch: str
    k_rec: str
    k_log: str


def build_register(
    plans: Sequence[Plan],
    sites: Mapping[str, Mapping[str, Any]],
    enrolled: Mapping[str, Enrolled],
    keys: Mapping[str, str],
    *,
    now: datetime,
    policy: str | None = None,
    collector: str | None = None,
) -> dict[str, Any]:
    """The register as YAML data.

    Args:
        plans: the sites.
        sites: site id → its site file, whose metering points and reservation are registered.
        enrolled: site id → its enrolment.
        keys: person id → public key, base64.
        now: keys are valid from an hour before it, for a day.
        policy: which witnesses have to have cosigned a checkpoint.
        collector: central's public key, whose verdicts witnesses are to cosign.
    """
    valid = {"valid_from": (now - timedelta(hours=1)).isoformat(), "valid_to": (now + timedelta(days=1)).isoformat()}
    solo_w = round(max(plan.contracted_kw for plan in plans) * 1000 * SOLO_TIMES)
    rights = [*ORDERS, "mode", "commission"]
    persons = [
        {"id": SYSTEM_OPERATOR, "name": "А. Серікова", "organisation": "Системный оператор", "role": "system_operator"},
        {"id": GRID_COMPANY, "name": "Б. Ахметов", "organisation": "Электрические сети", "role": "grid_company"},
    ]
    issuers: list[dict[str, Any]] = [
        {"person": who, "key": keys[who], "rights": [*rights, "inspect"], "zones": [ZONE], "solo_w": solo_w, **valid}
        for who in (SYSTEM_OPERATOR, GRID_COMPANY)
    ]
    for plan in plans:
        who = engineer_of(plan.id)
        persons.append({"id": who, "name": f"Главный инженер {plan.id}", "organisation": plan.id, "role": "site"})
        issuers.append({"person": who, "key": keys[who], "rights": ["mode", "commission"], "sites": [plan.id], **valid})
    document: dict[str, Any] = {
        "version": 1,
        "persons": persons,
        "issuers": issuers,
        "sites": [_site(plan, sites[plan.id], enrolled[plan.id]) for plan in plans],
    }
    named = {"collectors": [{"name": "Central", "key": collector}]} if collector is not None else {}
    return document | named | ({"policy": policy} if policy is not None else {})


def _site(plan: Plan, site: Mapping[str, Any], enrolled: Enrolled) -> dict[str, Any]:
    return {
        "id": plan.id,
        "zone": ZONE,
        "contracted_w": round(plan.contracted_kw * 1000),
        "emergency_w": round(plan.emergency_kw * 1000),
        "slot_s": SLOT_S,
        "simulation": True,
        "epochs": [{"epoch": enrolled.epoch, "k_rec": enrolled.k_rec, "k_log": enrolled.k_log}],
        "points": [_point(point) for point in site["metering_points"]],
    }


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    passport = point.get("passport", {})
    found: dict[str, Any] = {"id": point["id"], "role": point["role"], "boundary": point.get("boundary", False)}
    for name in ("ct", "vt"):
        if name in passport:
            found |= {f"{name}_num": passport[name]["num"], f"{name}_den": passport[name]["den"]}
    return found


def central_settings(
    plans: Sequence[Plan], *, port: int, broker_port: int, registrar_key: str, language: str = "kk"
) -> dict[str, Any]:
    """Settings of central; ``data`` beside them."""
    return {
        "schema": 1,
        "data_dir": "data",
        "host": "127.0.0.1",
        "port": port,
        "broker": {"mode": "child", "host": "127.0.0.1", "port": broker_port},
        "registrar_keys": [registrar_key],
        "default_language": language,
        "sites": [
            {
                "id": plan.id,
                "name": plan.name,
                "zone": ZONE,
                "phone": plan.phone,
                "contracted_kw": plan.contracted_kw,
                "emergency_kw": plan.emergency_kw,
                "measured_at": "NET",
            }
            for plan in plans
        ],
    }
