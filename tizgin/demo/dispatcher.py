"""The dispatcher of the unattended demo: a process of its own with its own keys, on the grid operator's side.

``python -m tizgin.demo.dispatcher PLAN RESULT`` signs orders with the grid operator's own code, posts them to central,
and believes nothing but the sites' signed answers. The plan is a JSON file (:class:`Plan`), the result is one too:
``{"orders": [...], "refused": [...], "problems": [...], "readings": {site: [file, ...]}}``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from grid.acts import write_envelope
from grid.client import CentralClient
from grid.errors import CentralUnreachable, GridError
from grid.heads import Heads
from grid.keystore import load_key, read_public
from grid.ordering import fetch_order, new_order
from grid.registrar.register import load_register
from grid.sequence import Sequence as Numbers
from grid.story import Story, tell
from tizgin.demo import askue
from wire.dsse import ORDER_TYPE, Envelope, seal
from wire.keys import SigningKey
from wire.names import topic
from wire.orders import SignedOrder, parse_order
from wire.records import parse_line
from wire.registry import KeysDocument
from wire.states import OrderState, Reason

T = TypeVar("T")
POLL_S = 0.2
HOLD_S = 3.0
"""How long the cut is watched at the meter before it is released."""
SHED_WITHIN_S = 45.0
RETURN_WITHIN_S = 60.0
LOAD_WITHIN_S = 45.0
ANSWER_WITHIN_S = 12.0
LIMIT_SHARE = 0.55
BACK_SHARE = 0.9
"""The load counts as returned at this share of what it was."""
LATE_S = 1
"""An order that has to begin within this, and is delivered later."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the dispatcher is to do, and where its things are. Paths are text, as they come from JSON."""

    central: str
    register: str
    registrar: str
    keys: tuple[str, ...]
    """Key files: the duty dispatcher's, then the second person's."""
    folder: str
    """Where signed orders are kept."""
    stage_permille: int
    stage_delay_s: int
    waves: tuple[dict[str, str], ...]
    """Site → action; the orders of one wave run at the same time."""
    feeders: dict[str, list[str]]
    """Site → metering points of the branches that its outputs may open."""
    broker: dict[str, Any]
    """For the intruder: host, port, ca, cert, key."""
    doors: dict[str, int]
    """Site → port at which the grid operator reads its true meters."""
    boundary: dict[str, list[str]]
    """Site → metering points that the grid operator reads itself."""
    slot_s: int

    @classmethod
    def read(cls, path: Path) -> Plan:
        """From a JSON file."""
        doc = json.loads(path.read_text(encoding="utf-8"))
        return cls(**doc | {"keys": tuple(doc["keys"]), "waves": tuple(doc["waves"])})


@dataclass(slots=True)
class Task:
    """One order on its way."""

    site: str
    action: str
    limit_w: int
    before_w: int
    signed: SignedOrder
    file: Path
    story: Story | None = None
    lines: list[str] = field(default_factory=list)
    highest_w: int | None = None
    """Highest power that central showed while the cut was held."""
    floor_w: int | None = None
    """What would be left with every output open: net power less the power of their branches, least while held."""
    returned: bool = False
    failed: bool = False

    @property
    def id(self) -> str:
        """Order id."""
        return self.signed.order.id

    @property
    def state(self) -> str | None:
        """State by signed answers alone."""
        return self.story.state if self.story else None

    def proven(self, state: OrderState) -> bool:
        """A signed answer of that state has been verified."""
        return self.story is not None and any(a.state == state for a in self.story.answers)

    def last_text(self) -> str:
        """What the site said last."""
        last = self.story.last if self.story else None
        return last.text if last else "no signed answer"


class Dispatcher:
    """Signs, posts and follows."""

    def __init__(self, plan: Plan, client: CentralClient, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.client = client
        self.say = say
        self.register: KeysDocument = load_register(Path(plan.register), [read_public(plan.registrar)])
        self.signers = [load_key(Path(file), environment={}) for file in plan.keys]
        self.numbers = Numbers(Path(plan.keys[0]), self.signers[0].kid)
        self.heads = Heads(Path(plan.keys[0]))
        self.folder = Path(plan.folder)
        self.problems: list[str] = []

    # making orders --------------------------------------------------------------------------------------------------

    def order(self, name: str, signers: Sequence[SigningKey], **fields: Any) -> tuple[SignedOrder, Path]:
        """Make and sign an order; it is kept as a file."""
        order = new_order(
            fields,
            register=self.register,
            sequence=self.numbers,
            now_ms=_now_ms(),
            heads=self.heads,
            central=self.client,
        )
        return self.keep(name, seal(ORDER_TYPE, order.encode(), *signers))

    def keep(self, name: str, envelope: Envelope) -> tuple[SignedOrder, Path]:
        """Write an envelope to a file and read it back as whoever receives it would."""
        file = self.folder / f"{name}.json"
        write_envelope(file, envelope)
        return parse_order(file.read_bytes().strip()), file

    def cut(self, site: str, action: str) -> Task:
        """Order a site to a limit (one person signs) or to a stop (two persons)."""
        net_w, _ = self.live(site)
        emergency_w = next(s.emergency_w for s in self.register.sites if s.id == site)
        common: dict[str, Any] = {
            "site": site,
            "until_released": True,
            "escalation": "switch",
            "after_s": 10,
            "execute_within_s": 60,
            "restore_stage_permille": self.plan.stage_permille,
            "restore_stage_delay_s": self.plan.stage_delay_s,
            "basis_code": "demo",
        }
        if action == "stop":
            limit_w = emergency_w
            signed, file = self.order(f"stop-{site}", self.signers, action="stop", **common)
        else:
            limit_w = max(emergency_w, round(net_w * LIMIT_SHARE))
            common |= {"limit_kw": limit_w / 1000, "methods": ("sleep",)}
            signed, file = self.order(f"limit-{site}", self.signers[:1], action="limit", **common)
        self.client.post_order(signed.raw)
        self.say(f"{site}: {action} to {limit_w / 1000:.1f} kW ordered, {net_w / 1000:.1f} kW now")
        return Task(site, action, limit_w, net_w, signed, file)

    def live(self, site: str) -> tuple[int, int]:
        """Net power, and power behind the outputs, as central shows them now, W.

        Raises:
            GridError: it shows nothing fresh.
        """
        doc = self.client.site(site)
        net_w, live = doc.get("power_w"), doc.get("live")
        if doc.get("freshness") != "fresh" or not isinstance(net_w, int) or not isinstance(live, dict):
            raise GridError(f"{site}: central shows no fresh power")
        points = live.get("points") or {}
        return net_w, sum(w for name in self.plan.feeders[site] if isinstance(w := points.get(name), int))

    # following ------------------------------------------------------------------------------------------------------

    def follow(self, task: Task) -> None:
        """Fetch the answers and verify them."""
        _, task.lines = fetch_order(self.client, task.id, mine=task.signed)
        task.story = tell(task.signed, task.lines, self.register)

    def until(self, tasks: Sequence[Task], state: OrderState, within_s: float) -> list[Task]:
        """Wait for a signed answer of that state from each; returns those that gave it."""

        def reached(task: Task) -> bool:
            self.follow(task)
            if task.proven(state):
                self.say(f"{task.site}: {task.action} {state}, signed by the site")
                return True
            # A failed order keeps trying; a refused one does not.
            task.failed = task.state in {OrderState.REJECTED, OrderState.EXPIRED, OrderState.CANCELLED}
            return task.failed

        late = wait_all(tasks, reached, within_s)
        for task in tasks:
            if task in late or task.failed:
                self.problems.append(
                    f"{task.site} {task.action}: not {state} within {within_s:g} s, signed state {task.state}: "
                    f"{task.last_text()}"
                )
        return [task for task in tasks if task not in late and not task.failed]

    def watch(self, tasks: Sequence[Task]) -> None:
        """Look at the meters for a while: a cut that was confirmed has to last."""
        end = time.monotonic() + HOLD_S
        while time.monotonic() < end:
            for task in tasks:
                net_w, behind_w = self.live(task.site)
                task.highest_w = max(net_w, task.highest_w or 0)
                left_w = max(0, net_w - behind_w)
                task.floor_w = left_w if task.floor_w is None else min(left_w, task.floor_w)
            time.sleep(POLL_S)

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Release, wait for the signed end, then for the load."""
        for task in tasks:
            release, _ = self.order(
                f"release-{task.action}-{task.site}",
                self.signers[:1],
                site=task.site,
                action="release",
                target=task.id,
                basis_code="demo",
            )
            self.client.post_order(release.raw)
        done = self.until(tasks, OrderState.DONE, RETURN_WITHIN_S)

        def returned(task: Task) -> bool:
            task.returned = self.live(task.site)[0] >= BACK_SHARE * task.before_w
            return task.returned

        for task in wait_all(done, returned, LOAD_WITHIN_S):
            self.problems.append(f"{task.site} {task.action}: the load did not return within {LOAD_WITHIN_S:g} s")

    def wave(self, orders: Mapping[str, str]) -> list[Task]:
        """Cut at several sites at once, see it held, give it back."""
        tasks = [self.cut(site, action) for site, action in orders.items()]
        held = self.until(tasks, OrderState.HOLDING, SHED_WITHIN_S)
        self.watch(held)
        self.give_back(tasks)
        return tasks

    # what must be refused -------------------------------------------------------------------------------------------

    def bad_orders(self, finished: Task) -> list[dict[str, Any]]:
        """A forged, a damaged, a replayed and a late order; each refusal as the site signed it."""
        site, fields = finished.site, {"action": "limit", "limit_kw": finished.limit_w / 1000, "until_released": True}
        fields |= {"site": site, "basis_code": "demo"}
        forged, _ = self.order(f"forged-{site}", [SigningKey.generate()], **fields)
        whole, _ = self.order(f"whole-{site}", self.signers[:1], **fields)
        damaged, _ = self.keep(f"damaged-{site}", _flipped(whole.envelope))
        for order in (forged, damaged):
            self.client.post_order(order.raw)
        # Central would neither send a finished order again nor one whose time is over. The agent must know by itself.
        late, late_file = self.order(f"late-{site}", self.signers[:1], execute_within_s=LATE_S, **fields)
        time.sleep(LATE_S + 0.5)
        self.client.post_order(late.raw)
        self._intrude(site, [finished.file, late_file])
        expected = [
            ("forged", forged, Reason.UNKNOWN_KEY),
            ("damaged", damaged, Reason.BAD_SIGNATURE),
            ("replayed", finished.signed, Reason.REPLAY),
            ("late", late, Reason.EXPIRED),
        ]
        found: dict[str, dict[str, Any]] = {}

        def refused(case: tuple[str, SignedOrder, Reason]) -> bool:
            name, signed, reason = case
            _, lines = fetch_order(self.client, signed.order.id, mine=signed)
            answers = [a for a in tell(signed, lines, self.register).answers if a.ty == "cmd_ack" and a.code == reason]
            if answers:
                told = {"why": str(reason), "what": name, "id": signed.order.id, "site": site}
                found[name] = told | {"signed_by_site_key": answers[0].kid}
            return bool(answers)

        for name, signed, reason in wait_all(expected, refused, ANSWER_WITHIN_S):
            self.problems.append(f"{site}: the {name} order {signed.order.id} was not refused with {reason}")
        return list(found.values())

    def _intrude(self, site: str, files: Sequence[Path]) -> None:
        plan = self.folder / f"intruder-{site}.json"
        messages = [{"topic": topic(site, "order"), "file": str(file)} for file in files]
        plan.write_text(json.dumps(self.plan.broker | {"messages": messages}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "tizgin.demo.intruder", str(plan)], capture_output=True, timeout=30, check=False
        )
        if done.returncode:
            self.problems.append(f"the intruder could not publish: {done.stderr.decode(errors='replace')[-400:]}")

    # result ---------------------------------------------------------------------------------------------------------

    def told(self, task: Task) -> dict[str, Any]:
        """One order for the report: figures out of verified answers, power in kW."""
        answers = task.story.answers if task.story else []
        ack = next((doc for doc in map(_doc, task.lines) if doc.get("ty") == "cmd_ack" and "before_w" in doc), {})
        held = next((a for a in answers if a.ty == "cmd_eff" and a.state == OrderState.HOLDING), None)
        last = next((a for a in reversed(answers) if a.ty == "cmd_eff"), held)
        ms = dict(last.ms) if last else {}
        return {
            "id": task.id,
            "site": task.site,
            "action": task.action,
            "limit_kw": _kw(task.limit_w),
            "floor_kw": _kw(task.floor_w),
            "before_kw": _kw(ack.get("before_w")),
            "after_kw": _kw(held.power_w if held else None),
            "highest_held_kw": _kw(task.highest_w),
            "state": task.state,
            "accepted_ms": ms.get("accepted"),
            "first_output_ms": ms.get("first_output"),
            "readback_ms": ms.get("readback"),
            "confirmed_ms": ms.get("confirmed"),
            "escalated": list(last.escalated) if last else [],
            "restored": task.returned,
            "signed_by": [kid for kid, _ in task.signed.envelope.signatures],
            "answers": len(answers),
            "answers_refused": [r.why for r in task.story.refused] if task.story else [],
        }


def wait_all(items: Sequence[T], reached: Callable[[T], bool], within_s: float) -> list[T]:
    """Ask each item again and again until all have reached what is waited for; returns those that did not."""
    left, end = list(items), time.monotonic() + within_s
    while left and time.monotonic() < end:
        still: list[T] = []
        for item in left:
            try:
                if not reached(item):
                    still.append(item)
            except (CentralUnreachable, GridError):  # central restarts, or shows nothing fresh: asked again
                still.append(item)
        left = still
        if left:
            time.sleep(POLL_S)
    return left


def _flipped(envelope: Envelope) -> Envelope:
    """The same order with one bit of its signature turned."""
    (kid, signature), *rest = envelope.signatures
    turned = bytes([signature[0] ^ 1]) + signature[1:]
    return Envelope(envelope.payload_type, envelope.payload, ((kid, turned), *rest))


def _doc(line: str) -> dict[str, Any]:
    return dict(parse_line(line.encode())[1])


def _kw(watt: Any) -> float | None:
    return round(watt / 1000, 3) if isinstance(watt, int) else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def work(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Do everything; never raises for what the other side does: that is among the ``problems``."""
    result: dict[str, Any] = {"orders": [], "refused": [], "problems": [], "readings": {}}
    tasks: list[Task] = []
    with CentralClient(plan.central) as client:
        dispatcher = Dispatcher(plan, client, say)
        try:
            first = askue.take(plan.doors, plan.slot_s)
            for orders in plan.waves:
                tasks += dispatcher.wave(orders)
            result["orders"] = [dispatcher.told(task) for task in tasks]
            result["refused"] = dispatcher.bad_orders(tasks[0])
            last = askue.take(plan.doors, plan.slot_s)
            result["readings"] = askue.sign(Path(plan.folder), plan.boundary, first, last, dispatcher.signers[0])
            say(f"own readings at the boundary over {last.at_s - first.at_s} s, signed for the verifier")
        except (GridError, OSError, subprocess.TimeoutExpired) as error:
            dispatcher.problems.append(str(error))
        if not result["orders"]:
            result["orders"] = [dispatcher.told(task) for task in tasks]
        result["problems"] = dispatcher.problems
    return result


def main() -> int:
    """Entry point: 0 when all went as ordered, 1 otherwise; the result file says what did not."""
    result = work(Plan.read(Path(sys.argv[1])), lambda text: print(text, flush=True))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
