"""Handing the releases of a plan to central and waiting for what the sites sign. One call of ``look`` is one look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grid.claims import plain
from grid.errors import CentralRefused, CentralUnreachable, GridError
from grid.release.collect import Central
from grid.story import Story, tell
from wire.orders import SignedOrder
from wire.registry import KeysDocument

MAX_AGE_MS = 600_000
"""A site refuses a release that is older."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one release."""

    code: str
    """``validated``, ``refused``, ``trial``, ``central_refused``, ``stale`` or ``no_answer``."""
    text: str
    at: int | None = None


class Carrier:
    """Releases on their way. The same bytes are handed over until central has them."""

    def __init__(self, central: Central, register: KeysDocument, releases: Mapping[str, SignedOrder]) -> None:
        self._central, self._register, self._releases = central, register, releases
        self._posted: set[str] = set()
        self.results: dict[str, Result] = {}
        """Order → what its site signed about the release, as far as it is final."""

    def look(self, now_ms: int) -> bool:
        """Send what is not there yet, read what was answered; true when nothing is open any more."""
        for target, signed in self._releases.items():
            if target in self.results:
                continue
            try:
                self._one(target, signed, now_ms)
            except CentralUnreachable:
                return False
        return len(self.results) == len(self._releases)

    def finish(self, phones: Mapping[str, str]) -> dict[str, Result]:
        """All results; who has not answered is to be called."""
        for target, signed in self._releases.items():
            phone = phones.get(signed.order.site)
            call = f" {phone}" if phone else ": its number is not known to central"
            self.results.setdefault(target, Result("no_answer", f"NOT DELIVERED — CALL{call}"))
        return self.results

    def _one(self, target: str, signed: SignedOrder, now_ms: int) -> None:
        order = signed.order
        try:
            lines = self._central.order(order.id).get("answers")
            story = tell(signed, lines if isinstance(lines, list) else [], self._register)
        except CentralUnreachable:
            raise
        except GridError:
            story = Story(order.id, order.site, sheds=False)
        result = judge(story)
        if result is not None:
            self.results[target] = result
        elif order.id not in self._posted:
            if now_ms - order.issued_at > MAX_AGE_MS:
                text = "signed over 10 minutes ago and not answered; sign anew into another folder"
                self.results[target] = Result("stale", text)
                return
            try:
                self._central.post_order(signed.raw)
            except CentralRefused as error:
                self.results[target] = Result("central_refused", str(error))
                return
            self._posted.add(order.id)


def judge(story: Story) -> Result | None:
    """What the site signed about a release; ``None`` while nothing is final."""
    accepted = story.accepted
    if accepted is not None:
        if story.trial is not None:
            return Result("trial", f"nothing is moved ({story.trial})", accepted.at)
        return Result("validated", plain(accepted.text), accepted.at)
    last = story.last
    if last is not None and last.ty == "cmd_ack":
        return Result("refused", plain(f"{last.code}: {last.text}"), last.at)
    return None
