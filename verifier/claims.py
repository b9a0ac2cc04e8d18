"""Reports of orders against what they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from verifier.commands import Claim
from verifier.errors import CommandError
from verifier.obedience import recompute
from verifier.points import Judged
from verifier.register import Register

LATE_MS = 60_000
"""A slot that was on record so long before the report has to be in it."""


def judge_claims(
    claims: Iterable[Claim], register: Register, points: Mapping[str, Judged]
) -> tuple[int, list[CommandError], list[str]]:
    """How many reports were recomputed, those that differ, and what a reader should ask about."""
    count, errors, doubts = 0, list[CommandError](), list[str]()
    for claim in claims:
        found = points.get(claim.point)
        if found is not None and claim.epoch in found.broken:
            doubts.append(f"{claim.where}: the report rests on {claim.point}, which could not be read to its end")
            continue
        try:
            _judge(claim, register, found, doubts)
            count += 1
        except CommandError as error:
            errors.append(error)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            errors.append(CommandError(f"{claim.where}: {type(error).__name__}: {str(error)[:200]}"))
    return count, errors, doubts


def _judge(claim: Claim, register: Register, found: Judged | None, doubts: list[str]) -> None:
    stated, duty = claim.stated, claim.duty
    slots = found.slots.get(claim.epoch, []) if found is not None else []
    used, contracted, grace = (_whole(claim, name) for name in ("slots_n", "contracted_w", "grace_s"))
    if used > len(slots) or any(slot.at <= claim.at - LATE_MS for slot in slots[used:]):
        text = f"rests on {used} records of {claim.point}, of which {len(slots)} are here"
        raise CommandError(f"{claim.where}: {text}; some were there before it and were left out, or are not here")
    wanted = duty.after_s
    if duty.order.get("action") == "stop":
        if grace != max(wanted, register.technological_s):
            doubts.append(f"{claim.where}: gives {grace} s for a stop, the register {register.technological_s} s")
        wanted = max(wanted, grace)
    if grace != wanted:
        raise CommandError(f"{claim.where}: grace_s is {grace}, from the order it is {wanted}")
    if register.contracted_w is not None and contracted != register.contracted_w:
        doubts.append(f"{claim.where}: made under {contracted} W, this register says {register.contracted_w} W")
    floor = stated.get("floor_w")
    if register.emergency_w is not None and floor not in {None, 0, register.emergency_w}:
        doubts.append(f"{claim.where}: made above {floor} W, this register reserves {register.emergency_w} W")
    known = [(slot.t0, slot.t1, slot.wh) for slot in slots[:used] if slot.t0 is not None]
    right = recompute(
        duty,
        claim.curve,
        known,
        set(claim.taken),
        contracted_w=contracted,
        grace_s=grace,
        slot_s=register.slot_s,
        floor_w=floor,
    ) | {"slots_n": used}
    if stated.keys() != right.keys():
        odd = sorted(stated.keys() ^ right.keys())
        raise CommandError(f"{claim.where}: the report has other fields than it should: {', '.join(odd)[:120]}")
    wrong = [name for name in sorted(right) if not _equal(stated[name], right[name])]
    if wrong:
        told = "; ".join(f"{name} is {str(stated[name])[:60]}, recomputed {str(right[name])[:60]}" for name in wrong)
        raise CommandError(f"{claim.where}: {told}")


def _whole(claim: Claim, name: str) -> int:
    value = claim.stated.get(name)
    if type(value) is not int or value < 0:
        raise CommandError(f"{claim.where}: {name} is {str(value)[:20]}, expected a whole number")
    return int(value)


def _equal(stated: object, right: object) -> bool:
    """Equal in type too: true is no 1."""
    if isinstance(stated, dict) and isinstance(right, dict):
        return stated.keys() == right.keys() and all(_equal(stated[name], right[name]) for name in right)
    if isinstance(stated, list) and isinstance(right, list):
        return len(stated) == len(right) and all(map(_equal, stated, right))
    return type(stated) is type(right) and stated == right
