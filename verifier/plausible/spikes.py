"""V08: one slot far above its neighbours and the usual load, with no order, switch or start near it."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from statistics import median

from verifier.plausible.change import TO_SIGMA
from verifier.plausible.rules import AROUND, EXPLAINED_S, SPIKE_FLOOR, SPIKE_Z
from verifier.plausible.said import Said
from verifier.standing import NONE


def judge_spikes(said: Said, wh: array[int], first: int, disturbed_s: Sequence[int], count_wh: int) -> None:
    """Judge the slots from place ``first`` on.

    A moment of full load between two outages is far above its neighbours and no spike, so it must be above what is
    reached in a tenth of the whole time too; a load that runs for longer is not one slot. A slot is judged only with
    neighbours on both sides.
    """
    known = sorted(value for value in wh if value != NONE)
    if not known:
        return
    level = known[len(known) * 9 // 10]
    least = level * (1 + SPIKE_Z * SPIKE_FLOOR)
    looked = False
    for place in range(first, len(wh)):
        if wh[place] == NONE or (wh[place] <= least and looked):
            continue
        before = [v for v in wh[max(0, place - AROUND) : place] if v != NONE]
        after = [v for v in wh[place + 1 : place + 1 + AROUND] if v != NONE]
        if min(len(before), len(after)) * 2 < AROUND:
            continue
        looked = True
        around = [*before, *after]
        near = median(around)
        usual = max(near, level)
        spread = max(TO_SIGMA * median(abs(v - near) for v in around), usual * SPIKE_FLOOR, count_wh)
        t0 = said.start_s + (place - first) * said.slot_s
        beside = max(before[-1], after[0]) - usual
        if wh[place] - usual > max(SPIKE_Z * spread, 2 * beside) and not _explained(disturbed_s, t0, t0 + said.slot_s):
            limit = round(usual + SPIKE_Z * spread)
            said.hold("V08", "suspect", t0, t0 + said.slot_s, wh[place], limit, "Wh", "far above its neighbours")
    if looked:
        said.judged.add("V08")


def _explained(disturbed_s: Sequence[int], t0: int, t1: int) -> bool:
    place = bisect_left(disturbed_s, t0 - EXPLAINED_S)
    return place < len(disturbed_s) and disturbed_s[place] <= t1 + EXPLAINED_S
