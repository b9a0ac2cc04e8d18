"""The story of an order out of signed answers: what is proven, by which key, and what is refused.

Only record lines whose signature verifies with a record key that the register names for that site and epoch count.
Everything else that central shows about an order is a claim and is kept apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.errors import BadRecord
from wire.keys import VerifyKey
from wire.names import origin
from wire.orders import SignedOrder
from wire.records import parse_line
from wire.registry import KeysDocument
from wire.states import Flag, OrderState

DELIVERY_LIMIT_MS = 10_000
"""Without a signed ``received`` by then the dispatcher must call (``docs/protocol.md``)."""
MAX_LINES = 2_000
ROOT = re.compile(r"[0-9a-f]{64}")
COMMANDS = frozenset({"cmd_rx", "cmd_ack", "cmd_eff", "cmd_report"})


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The newest checkpoint of its log as the site names it in an answer, with the signed line that says so."""

    size: int
    root: str
    """Hex."""
    line: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One verified record about the order."""

    ty: str
    state: str
    at: int
    kid: str
    n: int
    text: str
    code: str | None
    flags: tuple[str, ...]
    power_w: int | None
    target_w: int | None
    ms: Mapping[str, int | None]
    escalated: tuple[str, ...]
    agent_mode: str | None
    order_mode: str | None
    before_w: int | None = None
    """Power when the site took the order, in its acceptance."""
    head: SignedHead | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the site's verified report says; shares in per mille, null where they are not known."""

    verdict: str
    at: int
    kid: str
    n: int
    hold_permille: int | None
    missing_permille: int | None
    delivered_permille: int | None
    shortfall_wh: int | None
    excuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that does not count, and why."""

    line: str
    why: str


@dataclass(slots=True)
class Story:
    """What is known for certain about one order."""

    order_id: str
    site: str
    sheds: bool = True
    mode: str = "live"
    """Mode of the order as the dispatcher signed it."""
    tolerance_w: int = 0
    answers: list[Answer] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    report: Report | None = None
    """How the order was obeyed, once it has ended. Signed by the site; a verifier computes it again."""

    @property
    def received(self) -> Answer | None:
        """The site's signed word that the order arrived; the obligation runs from here."""
        return next((a for a in self.answers if a.ty == "cmd_rx"), None)

    @property
    def last(self) -> Answer | None:
        """The newest verified answer that has a state."""
        return self.answers[-1] if self.answers else None

    @property
    def state(self) -> str | None:
        """State by signed answers alone; ``None`` before the first."""
        return self.last.state if self.last else None

    @property
    def kids(self) -> tuple[str, ...]:
        """Keys that verified, in order of appearance."""
        last = () if self.report is None else (self.report.kid,)
        return tuple(dict.fromkeys((*(a.kid for a in self.answers), *last)))

    @property
    def accepted(self) -> Answer | None:
        """The site's first signed acceptance. A repeated one tells the mode of that later moment and does not count."""
        return next((a for a in self.answers if a.ty == "cmd_ack" and a.state != OrderState.REJECTED), None)

    @property
    def trial(self) -> str | None:
        """Why nothing was moved for this order: ``drill``, ``shadow``, ``monitor``; ``None`` for one acted upon."""
        accepted = self.accepted
        modes = {self.mode, *((accepted.order_mode,) if accepted else ())}
        if "drill" in modes or any(Flag.DRILL in a.flags for a in self.answers):
            return "drill"
        if accepted is not None and accepted.agent_mode in {"shadow", "monitor"}:
            return accepted.agent_mode
        return None

    @property
    def acted(self) -> bool:
        """True where the site signed that an agent that may move things took the order. Silence is not enough."""
        return self.trial is None and self.accepted is not None and self.accepted.agent_mode == "armed"

    @property
    def held(self) -> Answer | None:
        """The first answer that says the meter confirmed the effect."""
        return next((a for a in self.answers if a.ty == "cmd_eff" and a.state == OrderState.HOLDING), None)

    @property
    def _done(self) -> Answer | None:
        return next((a for a in reversed(self.answers) if a.ty == "cmd_eff" and a.state == OrderState.DONE), None)

    @property
    def completed(self) -> Answer | None:
        """The answer to be read aloud as fulfilment, or ``None`` where there is none to be read.

        For an order that sheds it is the meter's confirmation, and only while no later signed answer contradicts it:
        ``done`` says that the load is back, which a limit that was never reached also ends with. For any other order
        it is ``done``. What was taken in a drill, or by an agent that may move nothing, is never fulfilled.
        """
        if not self.acted:
            return None
        if not self.sheds:
            return self._done
        verdicts = [a for a in self.answers if a.ty == "cmd_eff" and a.state in {OrderState.HOLDING, OrderState.FAILED}]
        if not verdicts or verdicts[-1].state == OrderState.FAILED:
            return None
        last = verdicts[-1]
        if last.power_w is not None and last.target_w is not None and last.power_w > last.target_w + self.tolerance_w:
            return None
        return self.held

    @property
    def returned(self) -> Answer | None:
        """The answer that says the load taken off by this order is back."""
        return self._done if self.sheds and self.acted else None

    def not_delivered(self, *, signed_ms: int, now_ms: int) -> bool:
        """True when nothing signed came back in time: the dispatcher must call."""
        return self.received is None and now_ms - signed_ms >= DELIVERY_LIMIT_MS


def tell(signed: SignedOrder, lines: Iterable[str], register: KeysDocument) -> Story:
    """Verify the answer lines of one order.

    Args:
        signed: the order as the dispatcher signed it (its own bytes, not what central shows).
        lines: record lines as text, in any order, duplicates allowed.
        register: the register, verified with the registrar's key.
    """
    order = signed.order
    story = Story(order.id, order.site, sheds=order.sheds, mode=order.mode, tolerance_w=order.tolerance_w)
    keys = register.record_keys(order.site).get(order.epoch, {})
    found: dict[int, Answer | Report] = {}
    for count, text in enumerate(lines):
        if count >= MAX_LINES:
            story.refused.append(Refused("", f"more than {MAX_LINES} lines; the rest was not looked at"))
            break
        try:
            answer = _verify(text, signed, keys)
        except BadRecord as error:
            story.refused.append(Refused(str(text)[:120], str(error)))
            continue
        before = found.setdefault(answer.n, answer)
        if before != answer:
            story.refused.append(Refused(str(text)[:120], f"two different signed records number {answer.n}: a fork"))
    told = [found[n] for n in sorted(found)]
    story.answers.extend(one for one in told if isinstance(one, Answer))
    story.report = next((one for one in told if isinstance(one, Report)), None)
    if story.answers and story.answers[0].ty != "cmd_rx":
        story.refused.append(Refused("", "the signed 'received' is missing before the other answers"))
    if any(a.ty == "cmd_eff" for a in story.answers) and story.accepted is None:
        story.refused.append(Refused("", "the signed acceptance is missing, which says whether anything was moved"))
    return story


def _verify(text: Any, signed: SignedOrder, keys: Mapping[str, VerifyKey]) -> Answer | Report:
    order = signed.order
    if not isinstance(text, str):
        raise BadRecord(f"an answer is a JSON {type(text).__name__}, expected a record line")
    line, doc = parse_line(text.encode("utf-8", "surrogatepass").rstrip(b"\n"))
    key = keys.get(line.kid)
    if key is None:
        raise BadRecord(f"signed by key {line.kid}, which the register does not name for {order.site} {order.epoch}")
    if not line.verified_by(key):
        raise BadRecord(f"the signature of key {line.kid} does not verify")
    if doc["log"] != origin(order.site, order.epoch) or doc["st"] != "cmd" or doc["ty"] not in COMMANDS:
        where = f"{str(doc['log'])[:80]}/{doc['st']}"
        raise BadRecord(f"a {doc['ty']} record of {where}, expected the site's answer")
    if doc.get("id") != order.id:
        raise BadRecord(f"speaks of order {str(doc.get('id'))[:40]}, not of this one")
    if doc["ty"] == "cmd_rx" and doc.get("digest") != signed.digest:
        raise BadRecord("the site received other bytes under this order's id")
    if doc["ty"] == "cmd_report":
        return Report(
            verdict=_text(doc.get("verdict")) or "",
            at=int(doc["at"]),
            kid=line.kid,
            n=int(doc["n"]),
            hold_permille=_integer(doc.get("hold_permille")),
            missing_permille=_integer(doc.get("missing_permille")),
            delivered_permille=_integer(doc.get("delivered_permille")),
            shortfall_wh=_integer(doc.get("shortfall_wh")),
            excuses=_texts(doc.get("excuses")),
        )
    ms = doc.get("ms")
    return Answer(
        ty=doc["ty"],
        state=OrderState.RECEIVED.value if doc["ty"] == "cmd_rx" else _text(doc.get("state")) or "",
        at=int(doc["at"]),
        kid=line.kid,
        n=int(doc["n"]),
        text=_text(doc.get("text")) or "",
        code=_text(doc.get("code")),
        flags=_texts(doc.get("flags")),
        power_w=_integer(doc.get("power_w")),
        target_w=_integer(doc.get("target_w")),
        ms={str(k): _integer(v) for k, v in ms.items()} if isinstance(ms, dict) else {},
        escalated=_texts(doc.get("escalated")),
        agent_mode=_text(doc.get("agent_mode")),
        order_mode=_text(doc.get("order_mode")),
        before_w=_integer(doc.get("before_w")),
        head=_head(doc.get("cp"), text),
    )


def _head(value: Any, line: str) -> SignedHead | None:
    if not isinstance(value, dict):
        return None
    size, root = _integer(value.get("s")), value.get("r")
    if size is None or size < 1 or not isinstance(root, str) or not ROOT.fullmatch(root):
        return None
    return SignedHead(size, root, line)


def _text(value: Any) -> str | None:
    return value[:500] if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(item)[:100] for item in value[:100]) if isinstance(value, list) else ()


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
