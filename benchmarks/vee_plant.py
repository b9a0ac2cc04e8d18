"""A mining site at slot level, without devices, for measuring detection. The noise model is stated, not hidden.

Site: 100 MW class, 15 feeders of 6.5 MW (97.5 MW) behind one main meter, slots of 900 s.

* **Meters** class 0.5S with current and voltage transformers of class 0.5: each of the three has a constant error,
  normal with a third of the class as sigma, cut off at the class. On top a slow error of each meter (temperature, load
  angle): AR(1), sigma 0.03 %, time constant two days. Registers move in steps: 12 kWh at feeders (1 Wh, 600/5,
  10000/100), 132 kWh at the main meter (1 Wh, 600/5, 110000/100). Each boundary is read up to 1 s late.
* **Losses** 0.4 % no-load and 1.1 % at full load by the square of the load; the model that is subtracted has
  parameters that are up to 5 % off.
* **Load**: each feeder has a power of its own (±3 %) and wanders (AR(1), sigma 0.5 %, 6 h).
* **Weather** moves the true draw of all feeders together by up to ±2 % (1.2 % daily wave, the rest AR(1) over three
  days), and of each one by AR(1) sigma 0.2 %; the machines' own figures see nothing of it.
* **Machines' figures**: a feeder has six models in its own proportions; each model's figure is off by a constant drawn
  from ±15 %. The sum of a feeder wanders by sigma 3 % (AR(1), one hour).
* **Churn**: 2 % of the machines a week are exchanged, for another model of the site chosen anew each week and feeder.
* **Two pool outages** of 1 to 6 h on a random half of the feeders: load falls to 12 %, figures to 8 %;
  in the slots of ramps the figures fall by another share than the load.
* **Phases**: the three shares of a meter's load are normal around a third (sigma 2 %, cut off at 6 % of it) and wander
  (AR(1), sigma 1 %, 6 h); the least voltage of a slot is 97 to 102 % of nominal, and in 0.1 % of the slots a poll finds
  one phase at 60 to 90 %; 80 to 90 polls a slot. The meters' own event counters stand still.
* 0.2 % of the balances have a feeder missing (a gap); machines answer to 99.5 %, in 1 % of the slots to 95 %.

Attacks begin at a random slot of day 15 and stay:

* ``before``: 300 kW tapped between the main meter and the feeders' meters;
* ``behind``: 300 kW of unregistered machines behind one feeder's meter;
* ``ct``: one feeder's current transformers under-read by 10 %;
* ``bypass``: one phase of one feeder's meter is bridged: a third of its energy is not counted;
* ``unfed``: one phase's voltage is taken off one feeder's meter: the same, with its current still there;
* ``backwards``: one current transformer of one feeder is turned round: two thirds of its energy are not counted;
* ``cover``: one feeder's meter is opened, and nothing else shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from central.vee.model import Balance, Bind, Machines, Phases, Point, SiteSlots, Slot
from wire.points import EVENTS

Attack = Literal["none", "before", "behind", "ct", "bypass", "unfed", "backwards", "cover"]
ATTACKS: tuple[Attack, ...] = ("before", "behind", "ct", "bypass", "unfed", "backwards", "cover")
COUNTED = {"ct": 0.9, "bypass": 2 / 3, "unfed": 2 / 3, "backwards": 1 / 3}
"""Share of the attacked feeder's energy that is still counted."""
PHASE_MV = 5_773_503
SLOT_S, DAY = 900, 96
FEEDERS, FEEDER_W, HIDDEN_W = 15, 6_500_000, 300_000
WARM_UP_DAYS = 14
QUANTUM_WH, MAIN_QUANTUM_WH = 12_000, 132_000
T0 = 1_790_794_800
"""Midnight in Kazakhstan."""
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plant:
    """One site's slots of a seed, and what was done to it."""

    site: SiteSlots
    attack: Attack
    feeder: str | None
    begun: int
    """Epoch s; of an honest site the end of the warm-up."""


def ar(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, slots: float) -> Rows:
    """Stationary AR(1) along the last axis."""
    phi = float(np.exp(-1 / slots))
    noise = rng.normal(0, sigma * np.sqrt(1 - phi * phi), shape)
    noise[..., 0] = rng.normal(0, sigma, shape[:-1])
    for i in range(1, shape[-1]):
        noise[..., i] += phi * noise[..., i - 1]
    return noise


def class_error(rng: np.random.Generator, count: int) -> Rows:
    """Constant errors of meter, current and voltage transformers together."""
    parts = np.clip(rng.normal(0, 0.005 / 3, (3, count)), -0.005, 0.005)
    return np.asarray(parts.sum(axis=0))


def counted(energy_wh: Rows, power_w: Rows, quantum: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Energy by slot as a stepping register shows it that is read up to a second late."""
    edges = np.concatenate((np.zeros((len(energy_wh), 1)), np.cumsum(energy_wh, axis=1)), axis=1)
    edges += rng.uniform(0, quantum, (len(energy_wh), 1)) + 1e9
    late = rng.uniform(0, 1, edges.shape)
    late[:, :-1] *= power_w / 3600
    late[:, -1] = 0
    register = np.floor((edges + late) / quantum).astype(np.int64) * quantum
    return np.diff(register, axis=1)


def plant(seed: int, attack: Attack = "none", *, days: int = 45) -> Plant:
    """The site of one seed; the same seed has the same noise whatever the attack."""
    rng = np.random.default_rng(seed)
    n, shape = days * DAY, (FEEDERS, days * DAY)
    own = rng.uniform(0.97, 1.03, (FEEDERS, 1))
    wander = ar(rng, shape, 0.005, 24)
    hours = np.arange(n) / 4
    weather = 0.012 * np.sin(2 * np.pi * (hours - 9) / 24) + np.clip(ar(rng, (n,), 0.004, 288), -0.008, 0.008)
    local = ar(rng, shape, 0.002, 48)
    model_error = rng.uniform(-0.15, 0.15, 6)
    mix = rng.dirichlet(np.full(6, 1.5), FEEDERS)
    level = np.empty(shape)
    for week in range(0, n, 7 * DAY):
        target = rng.integers(0, 6, FEEDERS)
        steps = np.arange(min(7 * DAY, n - week)) / (7 * DAY) * 0.02
        for f in range(FEEDERS):
            before, after = mix[f] @ model_error, model_error[target[f]]
            level[f, week : week + len(steps)] = before + steps * (after - before)
            mix[f] *= 0.98
            mix[f][target[f]] += 0.02
    figure_noise = ar(rng, shape, 0.03, 4)
    drop, told = np.ones(shape), np.ones(shape)
    for _ in range(2):
        at, length = int(rng.integers(2 * DAY, n - DAY)), int(rng.integers(4, 25))
        hit = rng.random(FEEDERS) < 0.5
        drop[hit, at : at + length], told[hit, at : at + length] = 0.12, 0.08
        edge = rng.uniform(0.2, 0.9, (FEEDERS, 2))
        drop[hit, at - 1], told[hit, at - 1] = edge[hit, 0], edge[hit, 1]
        drop[hit, at + length], told[hit, at + length] = edge[hit, 1], edge[hit, 0]
    nominal = FEEDER_W * own * (1 + wander)
    power = nominal * (1 + weather + local) * drop
    figures = nominal * (1 + level) * (1 + figure_noise) * told
    bias = class_error(rng, FEEDERS + 1)
    slow = ar(rng, (FEEDERS + 1, n), 0.0003, 2 * DAY)
    loss_error = rng.uniform(0.95, 1.05, 2)
    victim, hour = int(rng.integers(0, FEEDERS)), int(rng.integers(0, DAY))
    jitter = np.random.default_rng(int(rng.integers(2**32)))
    holes = rng.random(n) < 0.002
    hole_at = rng.integers(0, FEEDERS, n)
    seen = np.where(rng.random(shape) < 0.01, 950, 995)

    start = WARM_UP_DAYS * DAY + (hour if attack != "none" else 0)
    after = np.arange(n) >= start
    behind, scale, extra = power.copy(), np.ones(shape), np.zeros(n)
    if attack == "before":
        extra = np.where(after, float(HIDDEN_W), 0.0)
    elif attack == "behind":
        behind[victim] += np.where(after, HIDDEN_W, 0)
    elif attack in COUNTED:
        scale[victim] = np.where(after, COUNTED[attack], 1.0)
    total = behind.sum(axis=0) + extra
    load = total / (FEEDERS * FEEDER_W)
    full = FEEDERS * FEEDER_W
    main_w = total + full * (0.004 + 0.011 * load**2)
    feeder_read = behind * scale * (1 + bias[:-1, None] + slow[:-1])
    main_read = main_w * (1 + bias[-1] + slow[-1])
    feeder_wh = counted(feeder_read / 4, feeder_read, QUANTUM_WH, jitter)
    main_wh = counted(main_read[None] / 4, main_read[None], MAIN_QUANTUM_WH, jitter)[0]
    sums = feeder_wh.sum(axis=0)
    loss = (full * (0.004 * loss_error[0] + 0.011 * loss_error[1] * (sums * 4 / full) ** 2) / 4).astype(np.int64)
    eps = 1.1 * np.sqrt(3) * 0.005
    tol = np.sqrt((eps * main_wh) ** 2 + ((eps * feeder_wh) ** 2).sum(axis=0)) + 0.1 * loss
    tol = (tol + FEEDERS * QUANTUM_WH + MAIN_QUANTUM_WH + main_wh * 2 / SLOT_S).astype(np.int64)

    bind = Bind("b" * 64, 0, "1", "technical", "n", False, False, *([Fraction(1)] * 4), pts={}, passport=None)
    points = {}
    phase_rng = np.random.default_rng([seed, 17])
    still = dict.fromkeys(EVENTS, 3)
    opened = still | {"cover_open": 4}
    for f in range(-1, FEEDERS):
        name = "M" if f < 0 else f"F{f + 1}"
        row = main_wh if f < 0 else feeder_wh[f]
        drawn = main_w if f < 0 else behind[f] * (0.9 if attack == "ct" and f == victim else 1.0)
        seen_by = by_phase(phase_rng, np.asarray(drawn), after & (f == victim), attack)
        points[name] = Point(
            name,
            tuple(
                _gap(i)
                if f >= 0 and holes[i] and hole_at[i] == f
                else _interval(
                    f + 1,
                    i,
                    int(row[i]),
                    seen_by[i],
                    opened if attack == "cover" and f == victim and after[i] else still,
                )
                for i in range(n)
            ),
            {bind.hash: bind},
        )
    wh = (figures / 4).astype(np.int64)
    balances = tuple(
        Balance(
            T0 + i * SLOT_S,
            T0 + (i + 1) * SLOT_S,
            f"ba1{i:061x}",
            ("M",),
            int(main_wh[i]),
            None if holes[i] else int(sums[i]),
            int(loss[i]),
            None if holes[i] else int(main_wh[i] - sums[i] - loss[i]),
            int(tol[i]),
            (f"F{hole_at[i] + 1}",) if holes[i] else (),
            {f"F{f + 1}": Machines(int(seen[f, i]) * 2, 2000, int(wh[f, i])) for f in range(FEEDERS)},
        )
        for i in range(n)
    )
    site = SiteSlots(
        "bench-1", SLOT_S, T0, T0 + WARM_UP_DAYS * DAY * SLOT_S, T0 + n * SLOT_S, points, balances,
        contracted_w=105_000_000,
    )  # fmt: skip
    named = f"F{victim + 1}" if attack not in {"none", "before"} else None
    return Plant(site, attack, named, T0 + start * SLOT_S)


def by_phase(rng: np.random.Generator, drawn_w: Rows, hit: npt.NDArray[np.bool_], attack: Attack) -> list[Phases]:
    """What the polls of each slot say of the phases of a meter; an attack is on phase 2, where ``hit``."""
    n = len(drawn_w)
    shares = (1 + np.clip(rng.normal(0, 0.02, (3, 1)), -0.06, 0.06)) * (1 + ar(rng, (3, n), 0.01, 24)) / 3
    volts = rng.uniform(0.97, 1.02, (3, n))
    dips = rng.random(n) < 0.001
    volts[rng.integers(0, 3, n)[dips], np.flatnonzero(dips)] = rng.uniform(0.6, 0.9, int(dips.sum()))
    power = drawn_w * shares
    milli_a = np.abs(power) / (PHASE_MV / 1000) * 1000
    polls = rng.integers(80, 91, n)
    if attack == "bypass":
        milli_a[1, hit] = power[1, hit] = 0
    elif attack == "unfed":
        volts[1, hit] = power[1, hit] = 0
    elif attack == "backwards":
        power[1, hit] *= -1
    none = (0, 0, 0)
    return [
        Phases(
            int(polls[i]),
            tuple(int(v * PHASE_MV) for v in volts[:, i]),
            tuple(int(ma) for ma in milli_a[:, i]),
            tuple(int(w) for w in power[:, i]),
            (0, int(polls[i]), 0) if attack == "unfed" and hit[i] else none,
            (0, int(polls[i]), 0) if attack == "backwards" and hit[i] else none,
        )
        for i in range(n)
    ]


def _interval(number: int, i: int, wh: int, phases: Phases, events: dict[str, int]) -> Slot:
    t0 = T0 + i * SLOT_S
    leaf = f"{number:04x}{i:060x}"
    return Slot(t0, t0 + SLOT_S, leaf, "interval", wh, cfg="b" * 64, sn="1", mto=120, phases=phases, events=events)


def _gap(i: int) -> Slot:
    t0 = T0 + i * SLOT_S
    return Slot(t0, t0 + SLOT_S, f"9a{i:062x}", "gap", why="TIMEOUT")
