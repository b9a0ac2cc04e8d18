"""What is measured at the polled site: many orders, cuts by contactors, and the floor."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client

from benchmarks.order_sides.broker import Identity
from benchmarks.order_sides.dispatcher import Dispatcher
from benchmarks.order_sides.echo import NUMBER_BYTES
from grid.keystore import load_key, read_public
from grid.ordering import current_epoch
from grid.registrar.register import load_register
from tizgin.demo.plan import OUTPUTS
from tizgin.demo.register import SYSTEM_OPERATOR
from wire.names import topic
from wire.orders import SignedOrder
from wire.states import OrderState

CUT_SHARE = 0.97
"""A limit at this share of the power, by switches alone: one contactor has to open."""
ANSWER_S, HELD_S, DONE_S, BACK_S = 20.0, 30.0, 60.0, 90.0
BACK_SHARE = 0.97
SAMPLE_S = 0.05
RETURN = {"restore_stage_permille": 1000, "restore_stage_delay_s": 1}
"""Of orders: what one contactor took returns at once."""
HOLDING = str(OrderState.HOLDING)


def arrivals(count: int, rate_per_s: float) -> list[int]:
    """Random moments (ns from the beginning), fixed beforehand: a busy agent does not slow the dispatcher down."""
    chance, at, found = random.Random(7), 0, []
    for _ in range(count):
        at += int(chance.expovariate(rate_per_s) * 1e9)
        found.append(at)
    return found


def at_moments(moments: list[int], send: Callable[[int], None]) -> list[int]:
    """Call ``send(i)`` at each moment; when each was due, monotonic ns."""
    began = time.monotonic_ns() + 50_000_000
    for i, moment in enumerate(moments):
        time.sleep(max(0.0, (began + moment - time.monotonic_ns()) / 1e9))
        send(i)
    return [began + moment for moment in moments]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Result of many orders; times in ms from the moment each was due to the first byte of its answer heard."""

    outside_ms: list[float]
    inside_ms: list[int]
    """By the agent's signed word: from the order's bytes to the durable answer."""
    polls_per_s: float
    cpu_share: float
    sample: SignedOrder
    """The largest order."""
    rx_bytes: int
    answer_bytes: int


def many_orders(desk: Dispatcher, count: int, rate_per_s: float) -> Accepted:
    """Limits that nothing has to move for, each superseding the one before; the last is released.

    Raises:
        RuntimeError: one was not accepted, or an answer does not verify.
    """
    fields = {"action": "limit", "limit_kw": desk.plan.contracted_kw, "until_released": True, "execute_within_s": 3600}
    register = load_register(desk.plant.folder.register, [read_public(desk.plant.registrar_key)])
    epoch = current_epoch(register, desk.plan.id)
    orders = desk.orders([fields | ({"supersedes": True} if i else {}) for i in range(count)], epoch=epoch)
    before, cpu, began = desk.plant.figures(desk.plan), desk.plant.cpu_s(desk.plan), time.monotonic()
    due = at_moments(arrivals(count, rate_per_s), lambda i: (desk.send(orders[i]), None)[1])
    acks = [desk.wait(order, "cmd_ack", within_s=ANSWER_S) for order in orders]
    took = time.monotonic() - began
    after = desk.plant.figures(desk.plan)
    name = "machine_polls_answered_total"
    cpu_share = (desk.plant.cpu_s(desk.plan) - cpu) / took
    release(desk, orders[-1])
    stories = [desk.story(order) for order in orders]
    lost = [s for s in stories if not any(a.ty == "cmd_ack" and a.state == OrderState.VALIDATED for a in s.answers)]
    if lost:
        raise RuntimeError(f"{len(lost)} of {count} orders were not accepted; first: {lost[0].answers}")
    inside = [ms for s in stories if (ms := next((a.ms["accepted"] for a in s.answers if a.ms), None)) is not None]
    sizes = {ty: len(line.text) for line in desk.lines[orders[-1].order.id] if (ty := line.ty) in {"cmd_rx", "cmd_ack"}}
    return Accepted(
        outside_ms=[(ack.heard_ns - at) / 1e6 for ack, at in zip(acks, due, strict=True)],
        inside_ms=inside,
        polls_per_s=round((after[name] - before[name]) / took, 1),
        cpu_share=round(cpu_share, 3),
        sample=orders[-1],
        rx_bytes=sizes["cmd_rx"],
        answer_bytes=sizes["cmd_ack"],
    )


def release(desk: Dispatcher, held: SignedOrder) -> None:
    """Give back what an order held, and wait for its signed end."""
    order = desk.order(action="release", target=held.order.id)
    desk.send(order)
    desk.wait(order, "cmd_ack", within_s=ANSWER_S)
    desk.wait(held, "cmd_eff", str(OrderState.DONE), str(OrderState.CANCELLED), within_s=DONE_S)


def cuts(desk: Dispatcher, count: int) -> list[dict[str, int]]:
    """Cuts by contactors, in turn a named feeder and a limit that one contactor meets; each given back.

    Returns ms by the agent's signed words, from the order's bytes: ``first_output``, ``readback``, and of limits
    ``confirmed`` (by the meter).

    Raises:
        RuntimeError: one was not held, or the load did not come back.
    """
    found: list[dict[str, int]] = []
    usual_w = desk.plant.true_power_w(desk.plan)
    for number in range(count):
        _load_back(desk, usual_w)
        common: dict[str, Any] = {"until_released": True, "execute_within_s": 60, "methods": ("switch",), **RETURN}
        if number % 2:
            feeder = OUTPUTS[number // 2 % len(OUTPUTS)]
            order = desk.order(action="open_feeders", feeders=(feeder,), persons=2, **common)
        else:
            limit_kw = round(usual_w * CUT_SHARE / 1000)
            order = desk.order(action="limit", limit_kw=limit_kw, persons=2, **common)
        desk.send(order)
        desk.wait(order, "cmd_eff", HOLDING, within_s=HELD_S)
        held = next(a for a in desk.story(order).answers if a.ty == "cmd_eff" and a.state == HOLDING)
        names = ("first_output", "readback", *(() if number % 2 else ("confirmed",)))
        times = {name: ms for name in names if (ms := held.ms.get(name)) is not None}
        if len(times) < len(names):
            raise RuntimeError(f"{desk.plan.id}: {order.order.action} is held, and its times are {dict(held.ms)}")
        # Signed ``readback`` counts from the switch's own command, the others from the order's bytes.
        times["readback"] += times["first_output"]
        found.append(times)
        release(desk, order)
    _load_back(desk, usual_w)
    return found


def _load_back(desk: Dispatcher, usual_w: float) -> None:
    end = time.monotonic() + BACK_S
    while (power_w := desk.plant.true_power_w(desk.plan)) < BACK_SHARE * usual_w:
        if time.monotonic() > end:
            raise RuntimeError(f"{desk.plan.id}: {power_w:.0f} W of {usual_w:.0f} W are back after {BACK_S:g} s")
        time.sleep(SAMPLE_S * 4)
    time.sleep(2.5)  # two meter periods: the agent has to see it too


def floor_ms(
    desk: Dispatcher, spare: Identity, client: Client, accepted: Accepted, folder: Path, count: int, rate_per_s: float
) -> list[float]:
    """The same bytes at the same moments to a process that only verifies, commits and answers.

    Args:
        desk: of the site whose topics are used; its agent has been stopped.
        spare: that site's place at the broker.
        client: the measuring side, which reads that site's ``progress``.
        accepted: how large orders, records and answers really are.
        folder: where the database is put.
        count: how many.
        rate_per_s: how fast.

    Raises:
        RuntimeError: it did not answer them all.
    """
    key = load_key(desk.plant.key_file(SYSTEM_OPERATOR), environment={})
    plan = folder / "echo.json"
    asked = {
        "broker": {"port": spare.port, "ca": spare.ca, "cert": spare.cert, "key": spare.key},
        "dispatcher": key.public.text,
        "order_topic": topic(desk.plan.id, "order"),
        "answer_topic": topic(desk.plan.id, "progress"),
        "database": str(folder / "echo.db"),
        "rx_bytes": accepted.rx_bytes,
        "answer_bytes": accepted.answer_bytes,
    }
    plan.write_text(json.dumps(asked), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.order_sides.echo", str(plan)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        try:
            if peer.stdout.readline() != b"ready\n":
                raise RuntimeError("the floor's peer did not start; its message is above")
            desk.heard.clear()

            def send(i: int) -> None:
                number = i.to_bytes(NUMBER_BYTES, "big")
                client.publish(topic(desk.plan.id, "order"), number + accepted.sample.raw, qos=1)

            due = at_moments(arrivals(count, rate_per_s), send)
            end = time.monotonic() + ANSWER_S
            while len(desk.heard) < count and time.monotonic() < end:
                time.sleep(SAMPLE_S)
        finally:
            peer.stdin.close()
    heard = {int.from_bytes(raw[:NUMBER_BYTES], "big"): at for at, raw in reversed(desk.heard)}
    if len(heard) < count:
        raise RuntimeError(f"the floor's peer answered {len(heard)} of {count}")
    return [(heard[i] - at) / 1e6 for i, at in enumerate(due)]
