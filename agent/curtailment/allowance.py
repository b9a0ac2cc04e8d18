"""How much may those who signed take away: one person, two, one under «Авария», a gateway within its mandate."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from agent.curtailment.intake import Verdict
from agent.curtailment.journal import Journal
from wire.orders import Order
from wire.powers import Declaration, Mandate
from wire.states import Reason

SOLO_WINDOW_MS = 600_000


@dataclass(slots=True)
class Allowance:
    """Counts what each person ordered alone within the last ten minutes."""

    journal: Journal
    _alone: deque[tuple[int, str, int]] = field(default_factory=deque)

    def refuses(
        self, order: Order, verdict: Verdict, before: int | None, target: int | None, now_ms: int
    ) -> Verdict | None:
        """One person may shed so much per ten minutes; two persons, a declaration or a mandate for more."""
        least = min([target or 0, *(order.hours or ())])  # of a schedule its strictest hour counts
        amount = max(0, (before or 0) - least)
        if verdict.mandate is not None:
            return self._mandated(verdict, verdict.mandate, before, amount)
        if len(verdict.persons) > 1:
            return None
        if verdict.declaration is not None:
            return self._declared(verdict, verdict.declaration, amount)
        while self._alone and now_ms - self._alone[0][0] > SOLO_WINDOW_MS:
            self._alone.popleft()
        person = verdict.persons[0]
        lately = sum(w for _, who, w in self._alone if who == person)
        allowed = max((i.solo_w for i in verdict.issuers), default=0)
        if amount + lately > allowed:
            return Verdict(
                Reason.SOLO_LIMIT,
                f"{person} alone may shed {allowed / 1000:.0f} kW per 10 minutes, this needs "
                f"{(amount + lately) / 1000:.0f} kW: a second person has to sign",
                verdict.kids,
            )
        self._alone.append((now_ms, person, amount))
        return None

    @staticmethod
    def _mandated(verdict: Verdict, mandate: Mandate, before: int | None, amount: int) -> Verdict | None:
        """A gateway cuts a site by no more than two persons allowed; what it cannot know it does not order."""
        if before is not None and amount <= mandate.max_cut_w:
            return None
        seen = "power now is unknown" if before is None else f"this needs {amount / 1000:.0f} kW"
        text = f"mandate {mandate.id} allows a cut of {mandate.max_cut_w / 1000:.0f} kW at one site; {seen}"
        return Verdict(Reason.NO_POWER, text, verdict.kids)

    def _declared(self, verdict: Verdict, declaration: Declaration, amount: int) -> Verdict | None:
        """Under an emergency one signature sheds at once, up to the declaration's cap for this site."""
        held = sum(
            max(0, (o.doc.before_w or 0) - (o.doc.target_w or 0))
            for o in self.journal.live.values()
            if o.order.sheds and o.order.declaration is not None and o.doc.released_by is None
        )
        if held + amount <= declaration.cap_w:
            return None
        return Verdict(
            Reason.SOLO_LIMIT,
            f"declaration {declaration.id} lets one person shed {declaration.cap_w / 1000:.0f} kW here, this needs "
            f"{(held + amount) / 1000:.0f} kW: a second person has to sign",
            verdict.kids,
        )

    def take_back(self, now_ms: int, person: str) -> None:
        """An order that was not journalled uses up nothing of what a person may order alone."""
        spent = next((a for a in reversed(self._alone) if a[:2] == (now_ms, person)), None)
        if spent is not None:
            self._alone.remove(spent)
