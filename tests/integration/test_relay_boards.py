"""Every shipped relay and breaker profile over real Modbus TCP: levels, masks, commands, settings, counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from drivers.capabilities import Position, WriteStatus
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import InputRef, RelayDevice, RelaySwitch, SafeStatus
from drivers.modbus.relay.safety import Used
from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import RelayProfile
from simulator.devices.modbus import ModbusTcpServer
from simulator.devices.relay import RelayUnit
from simulator.faults import DeviceFaults
from simulator.relays import RelayBody

BOARDS = sorted(p.id for p in load_profiles().values() if isinstance(p, RelayProfile))
LEVELS = [name for name in BOARDS if any(o.holds_level for o in load_profile(name).outputs)]  # type: ignore[union-attr]  # relays
BREAKER = "schneider-micrologic-active"


@dataclass
class Board:
    """One simulated module, the driver on it, and what its inputs feel."""

    body: RelayBody
    unit: RelayUnit
    device: RelayDevice
    faults: DeviceFaults
    felt: dict[str, bool] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    writes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)


@asynccontextmanager
async def board(
    name: str, *, used: Used | None = None, options: dict[str, str] | None = None, powered: bool = True
) -> AsyncIterator[Board]:
    profile = load_profile(name)
    assert isinstance(profile, RelayProfile)
    body, faults = RelayBody("io"), DeviceFaults()
    felt: dict[str, bool] = {}
    counts: dict[str, int] = {}

    def now_s() -> float:
        body.advance(time.monotonic())
        return time.monotonic()

    unit = RelayUnit(
        profile,
        body,
        level=lambda name: felt.get(name, False),
        now_s=now_s,
        counts=lambda name: counts.get(name, 0),
        faults=faults,
    )
    body.powered = powered
    server = ModbusTcpServer({1: unit})
    await server.start()
    link = ModbusLink(f"modbus://127.0.0.1:{server.port}", name="line", timeout_s=1.0)
    worker = asyncio.create_task(link.run())
    device = RelayDevice("io", 1, profile, link, options=options or {})
    everything = Used(
        {o.id: "contactor_no" for o in profile.outputs},
        frozenset(i.id for i in profile.inputs),
        frozenset(i.id for i in profile.inputs if i.counter is not None),
    )
    device.use(used or everything)
    found = Board(body, unit, device, faults, felt, counts)
    plain = unit.write_registers

    def write_registers(addr: int, words: tuple[int, ...]) -> None:
        found.writes.append((addr, tuple(words)))
        plain(addr, words)

    unit.write_registers = write_registers  # type: ignore[method-assign]  # looks over the shoulder
    try:
        yield found
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
        await server.stop()


async def until(condition: Callable[[], bool], what: str, limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", LEVELS)
async def test_every_output_goes_to_its_level_and_is_read_back_and_no_other_moves(name: str) -> None:
    async with board(name) as io:
        outputs = [o.id for o in io.device.profile.outputs]
        io.body.outputs[outputs[-1]] = True
        before = dict(io.body.outputs)
        for output in (outputs[0], outputs[len(outputs) // 2]):
            for level in (True, False):
                outcome = await io.device.write(output, level)
                assert outcome.status is WriteStatus.ACKNOWLEDGED
                assert outcome.detail.endswith("reads on" if level else "reads off")
                assert io.body.outputs == {**before, output: level}


@pytest.mark.parametrize("name", BOARDS)
async def test_an_image_shows_every_output_input_and_counter(name: str) -> None:
    async with board(name) as io:
        profile = io.device.profile
        for n, binary in enumerate(profile.inputs):
            io.felt[binary.id] = n % 2 == 0
            io.counts[binary.id] = 65_530 + n
        for n, output in enumerate(profile.outputs):
            io.body.outputs[output.id] = n % 3 == 0
        image = await io.device.read()
        assert image.error is None
        assert dict(image.inputs) == {b.id: n % 2 == 0 for n, b in enumerate(profile.inputs)}
        assert dict(image.coils) == {o.id: n % 3 == 0 if o.holds_level else None for n, o in enumerate(profile.outputs)}
        wide = {b.id: (65_530 + n) % 2 ** (16 * b.counter.words) for n, b in enumerate(profile.inputs) if b.counter}
        assert dict(image.counters) == wide


async def test_one_bit_of_a_mask_is_changed_and_the_mask_is_written_as_a_whole() -> None:
    async with board("owen-mu210") as io:
        for name in ("relay_2", "relay_16"):
            io.body.outputs[name] = True
        assert (await io.device.write("relay_1", True)).status is WriteStatus.ACKNOWLEDGED
        assert io.writes == [(470, (0b1000_0000_0000_0011,))]


async def test_without_the_masks_other_bits_nothing_is_written() -> None:
    async with board("owen-mu210") as io:
        io.faults.exception = 2
        outcome = await io.device.write("relay_1", True)
        assert outcome.status is WriteStatus.REFUSED
        assert outcome.detail.startswith("nothing was sent: the mask of outputs could not be read")
        assert io.writes == []


@pytest.mark.parametrize("name", ["owen-mu210", "moxa-iologik-e1214"])
async def test_an_output_that_somebody_else_moves_is_told_in_coils_and_in_registers(name: str) -> None:
    async with board(name) as io:
        told: list[tuple[str, bool, bool]] = []
        images: list[object] = []
        io.device.watch(0.02, lambda *seen: told.append(seen), images.append)
        await until(lambda: len(images) >= 2, "first images")
        assert (await io.device.write("relay_1", True)).status is WriteStatus.ACKNOWLEDGED
        seen = len(images)
        await until(lambda: len(images) >= seen + 3, "images after our own write")
        assert told == [], "our own write is nobody else's"
        io.body.outputs["relay_3"] = True
        await until(lambda: bool(told), "the foreign write is seen")
        assert told == [("relay_3", False, True)]


class Coils:
    """Opening and closing coil of a breaker; keeps what came through."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool]] = []

    def on_coil(self, level: bool, _now_s: float, *, close_coil: bool = False) -> None:
        self.seen.append((level, close_coil))


# -- command interface -----------------------------------------------------------------------------------------------


async def test_a_breaker_is_commanded_by_one_block_and_its_result_is_waited_for() -> None:
    async with board(BREAKER) as io:
        coils = Coils()
        io.body.wires.update({"open": (coils, False), "close": (coils, True)})  # type: ignore[dict-item]  # a switch
        outcome = await io.device.command("open")
        assert (outcome.status, outcome.detail) == (WriteStatus.ACKNOWLEDGED, "command 904: reported as done")
        assert io.writes == [(7999, (904, 10, 4609, 1, *[0] * 16))]
        assert (await io.device.command("close")).detail == "command 905: reported as done"
        await until(lambda: io.unit._now_s() > 0 and len(coils.seen) == 4, "both impulses are over")
        assert coils.seen == [(True, False), (False, False), (True, True), (False, True)], (
            "the breaker ends them itself"
        )


@pytest.mark.parametrize(
    ("happens", "status", "detail"),
    [
        ("refused", WriteStatus.REFUSED, "command 904: refused by the breaker with error 1"),
        ("running", WriteStatus.REFUSED, "nothing was sent: command 77 of another master is being carried out"),
        ("other", WriteStatus.UNKNOWN, "the result is of command 905; another master uses the command interface"),
        ("endless", WriteStatus.UNKNOWN, "command 904: still running after 1000 ms"),
        ("dead", WriteStatus.REFUSED, "nothing was sent: the command interface's result cannot be read"),
    ],
)
async def test_what_a_breaker_says_of_a_command_is_told_as_it_is(
    happens: str, status: WriteStatus, detail: str
) -> None:
    async with board(BREAKER) as io:
        unit = io.unit
        plain = unit._take_command

        def take(interface: object, words: tuple[int, ...], now_s: float) -> None:
            if happens == "refused":
                words = (words[0], 99, *words[2:])
            plain(interface, words, now_s)  # type: ignore[arg-type]  # as it was given
            if happens == "other":
                unit._command = (905, 0)
            elif happens == "endless":
                unit._command_done_s = float("inf")

        unit._take_command = take  # type: ignore[method-assign,assignment]  # the breaker misbehaves
        if happens == "running":
            unit._command, unit._command_done_s = (77, 0), float("inf")
        io.faults.dead = happens == "dead"
        outcome = await io.device.command("open")
        assert outcome.status is status
        assert detail in outcome.detail
        if happens in {"running", "dead"}:
            assert io.writes == []


async def test_a_command_is_for_what_opens_by_impulse_and_holds_no_level() -> None:
    async with board(BREAKER) as io:
        with pytest.raises(ValueError, match="holds no level"):
            await io.device.write("open", True)
        with pytest.raises(ValueError, match="holds no level"):
            RelaySwitch(io.device, "open", "contactor_no", None, None)
        switch = RelaySwitch(io.device, "open", "shunt_trip", None, None, close_output="close")
        assert (await switch.open()).status is WriteStatus.ACKNOWLEDGED
        assert (await switch.close()).status is WriteStatus.ACKNOWLEDGED
        assert (await switch.read()).position is Position.UNKNOWN, "an accepted command is no position"


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOARDS)
async def test_settings_are_read_back_and_good_as_the_profile_wants_them_or_not_readable(name: str) -> None:
    async with board(name) as io:
        first = io.device.safe_state()
        assert first.status is (SafeStatus.UNREAD if io.device.profile.settings else SafeStatus.NOT_READABLE)
        assert (first.why is None) is (not io.device.profile.settings), "what can be read has to be, before arming"
        await io.device.read_settings()
        state = io.device.safe_state()
        assert state.why is None
        assert state.values.keys() >= {s.id for s in io.device.profile.settings if not s.for_actuators}
        assert io.writes == [], "no setting is ever written"


WRONG = [
    (
        "wirenboard-wb-mr",
        {"safety_behaviour_3": 1},
        {},
        "io: safety_behaviour_3: seen 1, expected 0 (relay_3 when the master is silent: 0 stays as it is, 1 goes to "
        "its safe state); write 0 to holding register 940 with the maker's tool: losing the network "
        "must not move a switch",
    ),
    ("wirenboard-wb-mr", {"input_mode_2": 0}, {}, "input_mode_2: seen 0, expected 3"),
    ("wirenboard-wb-mr", {"debounce_1": 500}, {}, "debounce_1: seen 500, expected at most 50"),
    ("wirenboard-wb-mr", {"power_on": 1}, {}, "power_on: seen 1, expected 0"),
    ("wirenboard-wb-mr", {}, {"expect_watchdog_timeout_s": "30"}, "seen 0, expected 30 (as the site file says)"),
    ("icpdas-et7000", {"watchdog_timeout": 50}, {}, "watchdog_timeout: seen 50, expected 0"),
    ("icpdas-et7000", {"safe_value_3": 1}, {}, "safe_value_3: seen 1, expected 0"),
    ("moxa-iologik-e1214", {"watchdog_status": 1}, {}, "look at every switch, then clear the watchdog"),
]


@pytest.mark.parametrize(("name", "wrong", "options", "why"), WRONG, ids=lambda value: str(value)[:40])
async def test_a_wrong_setting_forbids_arming_and_says_what_to_do(
    name: str, wrong: dict[str, int], options: dict[str, str], why: str
) -> None:
    async with board(name, options=options) as io:
        io.body.settings.update(wrong)
        await io.device.read_settings()
        state = io.device.safe_state()
        assert state.status is SafeStatus.WRONG
        assert state.why is not None
        assert why in state.why
        io.body.settings.clear()
        if not options:
            await io.device.read_settings()
            assert io.device.safe_state().why is None, "a person put it right"


async def test_settings_of_terminals_that_are_not_used_do_not_matter() -> None:
    async with board("wirenboard-wb-mr", used=Used({"relay_1": "contactor_no"}, frozenset({"di_1"}))) as io:
        io.body.settings.update(input_mode_2=0, safety_behaviour_2=0, debounce_1=500)
        await io.device.read_settings()
        assert io.device.safe_state().status is SafeStatus.GOOD
        io.body.settings.update(input_mode_1=0)
        await io.device.read_settings()
        assert io.device.safe_state().status is SafeStatus.WRONG


async def test_what_is_safe_depends_on_what_hangs_on_the_output() -> None:
    """Off after a watchdog leaves a contactor_no open, and would close a contactor_nc."""
    async with board("icpdas-et7000", used=Used({"relay_1": "contactor_nc", "relay_2": "contactor_no"})) as io:
        io.unit._setting_at = lambda table: {514: 0, 515: 0} if table == "coil" else {256: 0}  # type: ignore[method-assign]  # all off
        await io.device.read_settings()
        why = str(io.device.safe_state().why)
        assert "safe_value_1_nc: seen 0, expected 1" in why
        assert "safe_value_2" not in why


async def test_a_device_that_falls_silent_keeps_its_settings_for_a_while_only() -> None:
    async with board("wirenboard-wb-mr") as io:
        await io.device.read_settings()
        io.faults.dead = True
        assert (await io.device.read_settings(deadline_s=0.3)).status is SafeStatus.UNREAD
        assert io.device.safe_state().why is None, "read well a moment ago"
        late = io.device.safe_state(max_age_s=0.0)
        assert late.status is SafeStatus.UNREAD
        assert late.why is not None
        assert "is it reachable?" in late.why


async def test_a_setting_that_an_older_module_does_not_have_is_passed_over() -> None:
    async with board("wirenboard-wb-mr") as io:
        plain = io.unit._setting_at
        io.unit._setting_at = lambda table: {a: v for a, v in plain(table).items() if a < 900}  # type: ignore[method-assign]  # older
        await io.device.read_settings()
        state = io.device.safe_state()
        assert state.status is SafeStatus.GOOD
        assert "safe_position_1" not in state.values
        io.body.settings.update(watchdog_timeout_s=10)
        await io.device.read_settings()
        assert "watchdog_timeout_s: seen 10, expected 0" in str(io.device.safe_state().why), "it would drop all outputs"
        io.body.settings.clear()
        await io.device.read_settings()
        io.unit._setting_at = lambda table: {a: v for a, v in plain(table).items() if a != 8}  # type: ignore[method-assign]  # broken
        await io.device.read_settings()
        assert io.device.safe_state().status is SafeStatus.GOOD, "unread now, read well a moment ago"


@pytest.mark.parametrize("options", [{"expect_timeout": "30"}, {"expect_power_on": "on"}, {"expect_power_on": "70000"}])
async def test_an_option_that_demands_what_is_not_there_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="option expect_"):
        async with board("wirenboard-wb-mr", options=options):
            pass


# -- counters and several inputs -------------------------------------------------------------------------------------


async def test_a_counter_that_does_not_run_gives_no_count() -> None:
    async with board("moxa-iologik-e1214") as io:
        io.counts["di_2"] = 7
        assert (await io.device.read()).counters["di_2"] == 7
        io.unit.stopped_counters.add(257)
        image = await io.device.read()
        assert image.counters["di_2"] is None
        assert image.error == "counter of di_2 does not run: start it, or nothing is counted"
        assert image.counters["di_1"] == 0


def switch_with(io: Board, **readiness: list[str]) -> RelaySwitch:
    ready = {point: [InputRef(io.device, name) for name in names] for point, names in readiness.items()}
    counter = InputRef(io.device, "di_6")
    return RelaySwitch(io.device, "relay_1", "contactor_no", None, None, readiness=ready, trips_counter=counter)


@pytest.mark.parametrize(
    ("point", "first", "second", "seen"),
    [
        ("trip_circuit_ok", True, True, True),
        ("trip_circuit_ok", True, False, False),
        ("control_voltage_ok", False, False, False),
        ("service_position", True, True, True),
        ("protection_trip", False, True, True),
        ("protection_trip", False, False, False),
        ("lockout", True, False, True),
    ],
)
async def test_of_several_inputs_the_worst_one_counts(point: str, first: bool, second: bool, seen: bool) -> None:
    async with board("moxa-iologik-e1214") as io:
        io.felt.update(di_1=first, di_2=second)
        io.counts["di_6"] = 41
        state = await switch_with(io, **{point: ["di_1", "di_2"]}).read()
        assert getattr(state, point) is seen
        assert state.trips_total == 41


async def test_an_input_that_cannot_be_read_is_unknown_unless_another_is_bad() -> None:
    async with board("moxa-iologik-e1214") as io, board("moxa-iologik-e1214") as other:
        io.felt["di_1"] = True
        other.faults.dead = True
        refs = [InputRef(io.device, "di_1"), InputRef(other.device, "di_1")]

        async def state_of(point: str) -> bool | None:
            ready = {point: refs}
            switch = RelaySwitch(io.device, "relay_1", "contactor_no", None, None, readiness=ready, deadline_s=0.4)
            found: bool | None = getattr(await switch.read(), point)
            return found

        states: list[Awaitable[bool | None]] = [state_of("remote"), state_of("lockout")]
        assert [await state for state in states] == [None, True]


async def test_a_trips_counter_needs_an_input_that_counts() -> None:
    async with board("moxa-iologik-e1213") as io:
        with pytest.raises(ValueError, match="di_1 is not counted by this module"):
            RelaySwitch(io.device, "relay_1", "contactor_no", None, None, trips_counter=InputRef(io.device, "di_1"))
