"""Site files of the demo: plain data for :class:`config.site.Site`, sized by the number of machines.

Each site has what a real one has and a toy has not: two 10 kV incomers and a section breaker with automatic transfer
(АВР), two 10/0.4 kV transformers, four boards of machines behind contactors, cooling on a board of its own, and a UPS
board from a bus that no output can darken. The UPS board supplies everything an order passes through, the meters of
all metering points included; one technical meter hangs behind an output and goes silent with it, as such meters do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tizgin.demo.plan import BOARDS, MACHINES, NO_LOAD_LOSS_SHARE, STOCK, Board, Plan

PDU_OUTPUT = "OUT1"
"""The rack PDU's outlet: known to the agent, never commissioned, so never used."""
ZONE = "demo"
SLOT_S = 10
RECLOSE_GUARD_S = 1.0
UPS_MIN = 60
GOOD_UNTIL = "2099-12-31"
"""Of the papers of the meters at the boundary; a demo does not grow old."""


@dataclass(frozen=True, slots=True)
class SitePorts:
    """Where a site's devices listen on loopback."""

    meters: int
    branch: int
    """The line of the technical meter behind an output: when it is silent, nobody else waits for it."""
    relays: int
    pdu: int
    metrics: int
    rpc: tuple[int, ...]
    """First port of each board's JSON sockets."""
    http: tuple[int, ...]
    """First port of each board's web pages; used by stock firmware."""


def allocate(ports: Callable[[int], int], plan: Plan) -> SitePorts:
    """Ports of one site; ``ports`` gives the first of so many neighbouring free ones."""
    first = ports(5)
    rpc = tuple(ports(board.machines) for board in plan.boards)
    http = tuple(ports(board.machines) if board.family == STOCK else 0 for board in plan.boards)
    return SitePorts(first, first + 1, first + 2, first + 3, first + 4, rpc, http)


def build_site(plan: Plan, ports: SitePorts, *, broker_port: int, registrar_key: str) -> dict[str, Any]:
    """The whole site file as plain data, to be written as YAML and read by :func:`config.loader.load_site`.

    Paths in it count from the folder of the file: ``state`` and ``tls`` beside it.
    """
    return {
        "schema": 1,
        "site": _head(plan),
        "agent": _agent(ports),
        "uplink": {
            "broker": f"mqtts://127.0.0.1:{broker_port}",
            "ca_file": "tls/ca.pem",
            "cert_file": "tls/site.pem",
            "key_file": "state/tls.key",
        },
        "trust": {"registrar_keys": [registrar_key]},
        "credentials": {
            "miners": {"user": "root", "password_file": "secrets/miners"},
            "pdu": {"password_file": "secrets/pdu"},
        },
        "networks": [
            {"id": "control", "kind": "control"},
            {"id": "metering", "kind": "metering"},
            {"id": "farm", "kind": "miners"},
            {"id": "racks", "kind": "pdu"},
        ],
        "equipment": [
            {"id": "box", "kind": "host", "fed_from": "UPS", "ups_min": UPS_MIN},
            {"id": "sw-control", "kind": "network", "fed_from": "UPS", "ups_min": UPS_MIN, "network": "control"},
            {"id": "gw-meters", "kind": "gateway", "fed_from": "UPS", "ups_min": UPS_MIN, "network": "metering"},
        ],
        "cooling_loops": [{"id": "AIR", "type": "air", "members": ["FANS"], "run_on_s": 60}],
        "nodes": _nodes(plan),
        "links": _links(ports),
        "devices": _devices(),
        "metering_points": _points(),
        "virtual_points": [
            {"id": "NET", "formula": "+M1 +M2", "role": "commercial", "boundary": True},
            {"id": "MINING", "formula": " ".join(f"+M1{b.number}" for b in plan.boards), "role": "technical"},
        ],
        "measured_at": {"net_import": "NET", "gross_mining": "MINING"},
        "miners": [_miners(board, ports) for board in plan.boards],
    }


def _head(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "name": plan.name,
        "zone": ZONE,
        "contracted_kw": plan.contracted_kw,
        # No technological reservation: a process's minutes are real ones, and a demo is short.
        "reservation": {"emergency_kw": plan.emergency_kw},
        "dispatch": {"name": f"ПС Демо-{plan.number}, яч. 1", "phone": plan.phone},
        "simulation": True,
    }


def _agent(ports: SitePorts) -> dict[str, Any]:
    return {
        "mode": "armed",
        "state_dir": "state",
        "host": "box",
        "slot_s": SLOT_S,
        "metrics_port": ports.metrics,
        "bulk_period_s": 2,
        "live_period_s": 1,
        "clock_source": "host",
        # Small computers run the demo: fewer writes at once leave time for the meters.
        "timing": {"cooldown_s": 2, "sleep_confirm_s": 8, "switch_confirm_s": 4, "sleep_concurrency": 32},
    }


def _nodes(plan: Plan) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for side in (1, 2):
        grid, incomer, section, breaker = f"GRID{side}", f"QF{side}", f"SECTION{side}", f"QT{side}"
        nodes += [
            {"id": grid, "type": "grid_connection", "permitted_kw": plan.contracted_kw, "voltage_kv": 10},
            {
                "id": incomer,
                "type": "switch",
                "role": "incomer",
                "fed_from": [grid],
                "dispatch_name": f"Ввод {side}",
                "close": "by_person",
            },
            {"id": section, "type": "bus", "fed_from": [incomer], "voltage_kv": 10},
            {"id": breaker, "type": "switch", "fed_from": [section]},
            {
                "id": f"T{side}",
                "type": "transformer",
                "fed_from": [breaker],
                "rated_kva": plan.transformer_kva,
                "no_load_loss_kw": round(plan.transformer_kva * NO_LOAD_LOSS_SHARE, 3),
                "load_loss_kw": round(plan.transformer_kva * 0.01, 3),
            },
            {"id": f"LV{side}", "type": "bus", "fed_from": [f"T{side}"], "voltage_kv": 0.4},
        ]
    nodes.append(
        {
            "id": "QS",
            "type": "switch",
            "role": "section",
            "between": ["SECTION1", "SECTION2"],
            "normal": "open",
            "avr": True,
            "dispatch_name": "Секционный",
        }
    )
    for board in plan.boards:
        nodes += _board(board)
    nodes += [
        {"id": "QU", "type": "switch", "fed_from": ["LV1"]},
        {"id": "UPS", "type": "bus", "fed_from": ["QU"]},
        {"id": "QC", "type": "switch", "fed_from": ["LV2"]},
        {"id": "COOLING", "type": "bus", "fed_from": ["QC"]},
        _load("FANS", "COOLING", "cooling", plan.cooling_kw, cooling_loop="AIR"),
        {"id": "QG", "type": "switch", "fed_from": ["LV2"]},
        _load("GUARD", "QG", "protected", plan.guard_kw, emergency=True),
        {
            "id": PDU_OUTPUT,
            "type": "switch",
            "role": "outlet",
            "fed_from": ["LV1"],
            "actuator": "latching",
            "close": "auto",
            "control": {"device": "pdu-1", "output": "1"},
        },
        _load("RACK", PDU_OUTPUT, "other", plan.rack_kw),
    ]
    return nodes


def _load(name: str, feeder: str, kind: str, rated_kw: float, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "load", "kind": kind, "rated_kw": rated_kw, "fed_from": [feeder], **more}


def _board(board: Board) -> list[dict[str, Any]]:
    number = board.number
    # Two boards per I/O module: six relays and six inputs each, two inputs for the two contacts of a contactor.
    module, place = f"io-{(number + 1) // 2}", (number - 1) % 2
    return [
        {
            "id": f"KM{number}",
            "type": "switch",
            "fed_from": [f"LV{1 if number <= BOARDS // 2 else 2}"],
            "actuator": "contactor_no",
            "close": "auto",
            "control": {"device": module, "output": f"relay_{place + 1}", "min_interval_s": 1},
            "position": {
                "open": {"device": module, "input": f"di_{2 * place + 1}"},
                "closed": {"device": module, "input": f"di_{2 * place + 2}"},
            },
            "reclose_guard_s": RECLOSE_GUARD_S,
        },
        {"id": f"BOARD{number}", "type": "bus", "fed_from": [f"KM{number}"]},
        _load(f"MINERS{number}", f"BOARD{number}", "mining", round(board.mining_kw, 1), cooling_loop="AIR"),
        _load(f"AUX{number}", f"BOARD{number}", "other", board.auxiliary_kw),
    ]


def _links(ports: SitePorts) -> list[dict[str, Any]]:
    return [
        {"id": "meters", "url": f"modbus://127.0.0.1:{ports.meters}", "network": "metering", "via": ["gw-meters"]},
        {"id": "branch", "url": f"modbus://127.0.0.1:{ports.branch}", "network": "metering"},
        {"id": "relays", "url": f"modbus://127.0.0.1:{ports.relays}", "network": "control", "via": ["sw-control"]},
        {"id": "pdus", "url": f"snmp://127.0.0.1:{ports.pdu}", "network": "racks"},
    ]


def _devices() -> list[dict[str, Any]]:
    profiles = [
        ("em-1", "eastron-sdm630", 1),
        ("em-2", "schneider-iem3000", 2),
        *((f"em-1{number}", "carlogavazzi-em24-e1", 10 + number) for number in range(1, BOARDS + 1)),
        ("em-3", "schneider-iem3000", 3),
        ("em-4", "schneider-iem3000", 4),
        ("em-5", "schneider-iem3000", 5),
    ]
    meters = [_meter(name, profile, unit, fed_from="UPS", ups_min=UPS_MIN) for name, profile, unit in profiles]
    behind = _meter("em-board1", "eastron-sdm630", 1, fed_from="BOARD1") | {"link": "branch"}
    relays = [
        {
            "id": f"io-{number}",
            "kind": "relay",
            "profile": "moxa-iologik-e1214",
            "link": "relays",
            "unit": number,
            "fed_from": "UPS",
            "ups_min": UPS_MIN,
        }
        for number in (1, 2)
    ]
    pdu = {
        "id": "pdu-1",
        "kind": "pdu",
        "profile": "apc-rpdu2",
        "link": "pdus",
        "fed_from": "LV1",
        "credentials": "pdu",
        "period_s": 5,
        "options": {"writes": "allowed"},
    }
    return [*meters, behind, *relays, pdu]


def _meter(name: str, profile: str, unit: int, **supply: Any) -> dict[str, Any]:
    return {"id": name, "kind": "meter", "profile": profile, "link": "meters", "unit": unit, "period_s": 1, **supply}


def _points() -> list[dict[str, Any]]:
    boundary = [
        {
            "id": f"M{side}",
            "device": f"em-{side}",
            "node": f"QF{side}",
            "role": "commercial",
            "owner": "the grid company",
            "boundary": True,
            "passport": {
                "accuracy_class": "0.5S",
                "expires": GOOD_UNTIL,
                "ct": {"num": 100, "den": 5, "accuracy_class": "0.5S", "expires": GOOD_UNTIL},
                "vt": {"num": 10_000, "den": 100, "accuracy_class": "0.5", "expires": GOOD_UNTIL},
                "ratio_applied_in": "meter",
                "ratio_checked": {"date": "2026-01-15", "by": "the grid company"},
                "seals": [{"no": f"DEMO-{side}"}],
            },
        }
        for side in (1, 2)
    ]
    feeders = [
        {
            "id": f"M1{number}",
            "device": f"em-1{number}",
            "node": f"KM{number}",
            "role": "technical",
            "owner": "the site",
        }
        for number in range(1, BOARDS + 1)
    ]
    # Every other branch has its meter too: then each slot can be balanced against the boundary.
    others = [
        {"id": f"M{number}", "device": f"em-{number}", "node": node, "role": "control", "owner": "the site"}
        for number, node in ((3, "QC"), (4, "QG"), (5, PDU_OUTPUT))
    ]
    return [*boundary, *feeders, *others]


def _miners(board: Board, ports: SitePorts) -> dict[str, Any]:
    index = board.number - 1
    found: dict[str, Any] = {
        "id": f"board{board.number}",
        "load": f"MINERS{board.number}",
        "family": board.family,
        "rpc": _range(ports.rpc[index], board.machines),
        **MACHINES[board.family],
        "writes_allowed": True,
        "network": "farm",
        "period_s": 5,
    }
    if board.family == STOCK:
        found |= {"http": _range(ports.http[index], board.machines), "credentials": "miners"}
    return found


def _range(first: int, count: int) -> str:
    return f"127.0.0.1:{first}" if count == 1 else f"127.0.0.1:{first}-{first + count - 1}"
