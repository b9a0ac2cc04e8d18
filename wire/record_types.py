"""Fields of each record type, beside the common ones of :mod:`wire.records`.

Times ``t0``/``t1`` are UTC epoch seconds on the slot grid; every other time is ms. ``reg`` holds raw register bits as
unsigned integers by point of the vocabulary. ``raw`` holds ``[request hex, answer hex]`` frames as on the wire
(Modbus: unit, function, data).
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Genesis(TypedDict):
    """Stream ``site``, number 0: the first record of a ledger's life."""

    site: str
    slot_s: int
    k_rec: str
    k_log: str
    prev: dict[str, Any] | None
    simulation: bool
    contracted_w: int
    emergency_w: int


class Start(TypedDict):
    """The agent process began."""

    config_sha256: str
    mode: str
    keys_version: int | None
    guard: NotRequired[str]
    """Whether witnesses were asked for a later checkpoint of this log: ``new asked unasked`` (nobody answered)."""


class DecodeMap(TypedDict):
    """How raw bits become a number: ``value = number(bits) · num/den`` in the point's SI unit, primary side."""

    fc: int
    addr: int
    words: int
    order: str
    enc: str
    lsb: dict[str, int]
    roll: NotRequired[int]
    """Counts at which the register starts again from 0; absent where nobody knows, and then a fall is a reset."""


class Edge(TypedDict):
    """A reading between two boundaries: ``rt`` ms, ``reg`` raw bits by point, ``raw`` frames, ``w`` the power, W."""

    rt: int
    reg: dict[str, int]
    raw: list[list[str]]
    w: NotRequired[int | None]


class PowerIntegral(TypedDict):
    """Power integrated over a slot: net ``wh``, ``n`` readings, the longest time without one. A check, no register."""

    wh: int
    n: int
    gap_ms: int


class PhaseValues(TypedDict):
    """What the polls of a slot read of each phase (L1, L2, L3). Primary side; null where it was never read.

    Each reading is rounded to a whole mV, mA or W, half to even, and a mean of those again. Not evidence of energy.
    """

    n: int
    """Polls that held values by phase."""
    u: list[int | None]
    """Least voltage, mV."""
    i: list[int | None]
    """Mean current, mA, as a magnitude."""
    p: list[int | None]
    """Mean active power, W, import positive as the meter sees it."""
    iu: list[int]
    """Polls in which the phase carried current (at least a tenth of the largest phase's) without voltage (below half of
    the median of the other phases)."""
    neg: list[int]
    """Polls in which its power was negative while the sum was positive; of an inverted point the other way round."""


class Upstream(TypedDict):
    """How the nearest live meter above (``mp``) saw a branch go dark; W as drawn downwards.

    ``was_w`` just before, ``now_w`` the least within 30 s after, ``own_w`` what the branch drew last. ``seen``: it fell
    by at least half of ``own_w``; null where ``own_w`` was too little to be seen from there.
    """

    mp: str
    was_w: int
    now_w: int
    own_w: int
    seen: bool | None


class Swap(TypedDict):
    """A person's word on the exchange of a meter. Energies in primary Wh; null where it could not be read.

    ``since`` is the last reading of the old meter and ``to`` the first of the new one (ms): in between nothing was
    metered.
    """

    person: str
    reason: str
    was_sn: str | None
    now_sn: str | None
    closing_wh: int | None
    closing_why: str | None
    opening_wh: int | None
    photo_sha256: str | None
    since: int | None
    to: NotRequired[int]


class Bind(TypedDict):
    """A meter is put in service at a metering point (stream ``mp:<id>``)."""

    device: str
    profile: str
    sn: str | None
    role: str
    owner: str
    boundary: bool
    node: str
    inverted: bool
    ct: dict[str, int]
    vt: dict[str, int]
    ratio_applied_in: str
    """``meter``, ``agent`` or ``both``; whatever the agent applies is multiplied into the ``lsb`` of ``pts``."""
    seals: list[str]
    """Numbers of the seals."""
    pts: dict[str, DecodeMap]
    lp: NotRequired[dict[str, Any]]
    """How entries of the meter's own load profile are read, where it has one; ``docs/protocol.md`` lists the fields."""
    ct_read: NotRequired[dict[str, int] | None]
    """The ratio that the meter itself is set to; null where it has no such register. ``vt_read`` likewise."""
    vt_read: NotRequired[dict[str, int] | None]
    passport: NotRequired[dict[str, Any]]
    """The metrological passport as written: certificates with dates, transformers by phase, seals. A bind that differs
    from the one before in this alone binds the same meter on: no gap, and readings continue."""
    open: NotRequired[Edge]
    """Opening reading of the meter that is bound."""
    swap: NotRequired[Swap]
    """What a person said of the exchange that this bind follows."""


class Interval(TypedDict):
    """One slot read on both sides.

    ``wh`` = floor(E(r1)) − floor(E(r0)) of ``energy_import_wh`` in primary Wh; ``exp_wh`` of the export register, null
    where there is none. ``q`` is a list of flags, empty when nothing is to be said: ``late0 late1 rollover frozen``.
    ``frozen``: the register did not move although ``pi`` says that it must have; ``wh`` is what the register says all
    the same. ``mto`` is the meter's clock minus UTC, ms; null where it has none that can be read.
    """

    t0: int
    t1: int
    rt0: int
    rt1: int
    reg: dict[str, list[int]]
    cfg: str
    wh: int
    exp_wh: int | None
    sn: str | None
    mto: int | None
    q: list[str]
    raw: list[list[str]]
    raw0: NotRequired[list[list[str]]]
    """Frames of the opening reading where no interval before this one carries them."""
    late_ms: NotRequired[int]
    """How late the later of the flagged readings was."""
    late_wh: NotRequired[int | None]
    """Energy that the lateness of a boundary reading may have moved to the neighbour; null where power was not read."""
    pi: NotRequired[PowerIntegral]
    ph: NotRequired[PhaseValues]
    """Absent where nothing was read by phase."""
    ev: NotRequired[dict[str, int]]
    """The meter's own event counters as read at r1, by event (:data:`wire.points.EVENTS`); absent where none was."""
    bridge_wh: NotRequired[int]
    """After a gap: energy between the last good boundary reading (``bridge_rt``, ``bridge_reg``) and r0."""
    bridge_rt: NotRequired[int]
    bridge_reg: NotRequired[dict[str, int]]


class Gap(TypedDict):
    """One slot without a reading on at least one side."""

    t0: int
    t1: int
    why: str
    tries: int
    sw: NotRequired[str]
    """``DE_ENERGISED``: the switch that was open for the whole slot. With another reason: the meter lost its supply
    behind this switch within the slot, or got it back."""
    up: NotRequired[Upstream]
    e0: NotRequired[Edge]
    """First reading of the slot while the branch was live: at its beginning, or after the switch closed."""
    e1: NotRequired[Edge]
    """Last reading of the slot while the branch was live: before the switch opened, or at its end."""
    part_wh: NotRequired[int]
    """floor(E(e1)) − floor(E(e0)) of the import register."""


GAP_REASONS = frozenset(
    {
        "TIMEOUT",
        "CRC",
        "EXCEPTION",
        "NO_CONNECTION",
        "NO_VALUE",
        "NO_POWER",
        "DE_ENERGISED",
        "AGENT_DOWN",
        "SERIAL_CHANGED",
        "RATIO_CHANGED",
        "CLOCK",
        "COUNTER_RESET",
        "DECODE",
    }
)


class SeenMachines(TypedDict):
    """Machines behind one feeder ``mp``: how many were ``seen`` (answered over at least half of the slot) of those
    ``expected``, and what they drew by their own figures; ``wh`` null where fewer than half were seen."""

    mp: str
    seen: int
    expected: int
    wh: int | None


class Archive(TypedDict):
    """A slot as the meter's own load profile has it (stream ``mp:<point>``). The slot's interval or gap stays.

    ``wh`` follows from the entries in ``raw`` by ``bind.lp``: the entries that make up the slot, or, where the meter
    keeps register readings, those at its two edges. ``rt`` is when the meter's clock was read (ms), ``mto`` that clock
    minus UTC, ms.
    """

    t0: int
    t1: int
    wh: int
    src: str
    """Always ``profile``."""
    cfg: str
    """Leaf hash of the ``bind`` in force."""
    rt: int
    mto: int
    sn: str | None
    raw: list[list[str]]
    """Frames of the clock, the period where the meter tells it, and the entries."""


class Balance(TypedDict):
    """Stream ``bal``: one slot of the boundary against the meters just below it. Net Wh, as drawn downwards.

    ``main_wh`` = Σ ``main`` − Σ ``transit`` (sub-subscribers that are fed through the site); ``residual_wh`` =
    ``main_wh`` − ``feeders_wh`` − ``loss_wh``. A figure is null where one of its members is not known; those are in
    ``missing``. A slot without energy, ``DE_ENERGISED``, counts as 0.
    """

    t0: int
    t1: int
    main: list[str]
    transit: list[str]
    feeders: list[str]
    main_wh: int | None
    feeders_wh: int | None
    loss_wh: int | None
    residual_wh: int | None
    tol_wh: int | None
    loss_id: str | None
    """See :func:`wire.losses.loss_id`; null where an element has no passport data, and then losses are not known."""
    missing: list[str]
    asic: list[SeenMachines]


class Spot(TypedDict):
    """Stream ``mp:<point>``: a person read the display, and the agent the registers, at once.

    ``display_wh`` is as on the display, in Wh of the meter's own side: what the agent multiplies registers by is not in
    it. ``display_lsb_wh`` is one step of its last digit. ``diff_wh`` = floor(E(reg)) − floor(display_wh · that factor),
    primary.
    """

    point: str
    who: str
    organisation: str
    role: str
    seen: int
    """When the person read the display, ms."""
    display_wh: int
    display_lsb_wh: int
    cfg: str
    """Leaf hash of the ``bind`` in force."""
    sn: str | None
    rt: int
    reg: dict[str, int]
    raw: list[list[str]]
    w: int | None
    seals: list[str]
    """Numbers as the person found them."""
    photo_sha256: str | None
    diff_wh: int
    act: str | None
    """Base64 of the person's signed envelope of the same (act ``spot``); null: unsigned."""


class KeyRotate(TypedDict):
    """A key takes over (stream ``site``), signed by the record key that was valid until here.

    ``role`` is ``k_rec`` or ``k_log``; keys in base64; ``from_index`` the record's own place in the log and one. The
    proofs are those of :mod:`wire.rotation`.
    """

    role: str
    old: str
    new: str
    from_index: int
    proof_old: str
    proof_new: str


class Clock(TypedDict):
    """The wall clock moved by more than 2 s against the monotonic clock (stream ``site``). Times in ms.

    ``was`` is what it would have shown without the step (after a start: the trusted time of the run before), ``now``
    what it shows, ``step_ms`` = now − was. The slots it happened in are gaps with reason ``CLOCK``.
    """

    step_ms: int
    was: int
    now: int


class Event(TypedDict):
    """Something happened (stream ``site``): ``switch_position``, ``foreign_write``, ``alarm``, ``mode``,
    ``meter_clock`` (how far a meter's clock is away, told when the verdict changes), ``replaced`` (a device was
    exchanged; ``detail`` as :class:`Swap` with ``outputs``, those that are unarmed by it) …"""

    ev: str
    obj: str
    was: NotRequired[str | None]
    now: NotRequired[str | None]
    detail: NotRequired[dict[str, Any]]


class ActRecord(TypedDict):
    """A signed act of people, verbatim (base64 of the envelope)."""

    act: str
    doc: str


class CmdRx(TypedDict):
    """An order arrived (stream ``cmd``): verbatim, base64 of the envelope; null when too large or over the rate."""

    id: str | None
    digest: str | None
    raw: str | None
    rx: int


class LogHead(TypedDict):
    """Size ``s`` and root ``r`` (hex) of a log."""

    s: int
    r: str


class CmdAck(TypedDict):
    """The agent's decision.

    ``cp`` is the newest checkpoint that the site has signed of its log; absent where there is none yet.
    """

    id: str | None
    state: str
    code: str | None
    text: str
    order_mode: str | None
    agent_mode: str
    kids: list[str]
    seq: int | None
    cp: NotRequired[LogHead]
    dup: NotRequired[bool]
    before_w: NotRequired[int | None]
    target_w: NotRequired[int | None]
    plan: NotRequired[dict[str, Any]]


class CmdEff(TypedDict):
    """What an order did: one record at each signed milestone.

    ``ms`` holds times since the order entered the agent: accepted, first_output, confirmed; and ``readback``, the
    longest time from a switch's write to its position read back (where no switch moved: the shortest from a machine's
    write to its mode read back).
    """

    id: str
    state: str
    flags: list[str]
    power_w: int | None
    target_w: int | None
    proof: dict[str, Any] | None
    positions: list[list[str]]
    """``[switch, position]`` of every switch held."""
    ms: dict[str, int | None]
    escalated: list[str]
    text: str


class CmdTrace(TypedDict):
    """Samples of the point an order is judged by, one part a minute; times in ms after ``t0`` unless said otherwise.

    ``dt`` is the time of each sample after the one before it (the first: after ``t0``), ``w`` its power, null where it
    was not known, ``q`` the quality of each, empty where all are good. ``states`` are the order's states and ``pos``
    the positions of outputs, each when it changed. ``why`` is what stood in the way while power was above the target:
    output (empty: the site), one of :data:`wire.obedience.EXCUSES`.
    """

    id: str
    point: str
    part: int
    t0: int
    dt: list[int]
    w: list[int | None]
    q: list[int]
    pos: list[list[int | str]]
    states: list[list[int | str]]
    why: list[list[int | str]]
    uq: NotRequired[list[SupplySamples]]
    """Absent where no meter at the order's points read voltage or reactive power."""
    bat: NotRequired[list[StorageSamples]]
    """Of an order at the net point: what the meters of batteries read; absent where there is none."""


class SupplySamples(TypedDict):
    """Voltage and reactive power at metering or virtual point ``mp``, span after span; ``dt`` as of the trace, to the
    end of each.

    ``lo`` and ``hi`` are the least and the greatest voltage since the span before, mV on the primary side, of all that
    the meter reads between ``line`` and line or of each ``phase`` (``of``; null before any was read); ``qlo`` and
    ``qhi`` of reactive power, var, drawn positive. Null where it was not read.
    """

    mp: str
    of: str | None
    dt: list[int]
    lo: list[int | None]
    hi: list[int | None]
    qlo: list[int | None]
    qhi: list[int | None]


class StorageSamples(TypedDict):
    """Power of a battery at its metering point ``mp``, W, charging positive; ``dt`` as of the trace."""

    mp: str
    dt: list[int]
    w: list[int | None]


class SupplyExtremes(TypedDict):
    """Least and greatest voltage, mV, and reactive power, var, over a time; null where it was not read."""

    lo_mv: int | None
    hi_mv: int | None
    lo_var: int | None
    hi_var: int | None


class SupplyFigures(TypedDict):
    """One point and kind of voltage of the trace: before the duty began, during it, and after its end."""

    mp: str
    of: str | None
    before: SupplyExtremes
    during: SupplyExtremes
    after: SupplyExtremes


class StorageFigures(TypedDict):
    """What a battery had to do with the windows of the duty. ``before_w`` is its mean over the minute before.

    ``discharge_wh`` is all it gave in windows whose power is known, ``more_discharge_wh`` what it gave beyond what it
    gave before, ``less_charge_wh`` what it charged less than before; ``missing`` counts windows in which it was not
    read.
    """

    mp: str
    before_w: int | None
    discharge_wh: int
    more_discharge_wh: int | None
    less_charge_wh: int | None
    missing: int


class StorageShare(TypedDict):
    """How much of the reduction was batteries': energy below the power before, and each battery's part."""

    reduced_wh: int | None
    points: list[StorageFigures]


class BaselineFigure(TypedDict):
    """What would have been drawn: ``b_w``, the mean of ``n`` values."""

    b_w: int
    n: int


class Baseline(TypedDict):
    """What would have been drawn without the order, by three methods; ``lacking`` says why one of them is null."""

    before_after: BaselineFigure | None
    same_day_3_2: BaselineFigure | None
    high_4_of_5: BaselineFigure | None
    lacking: dict[str, str]


class MinutePower(TypedDict):
    """Mean power over the first, fifth and fifteenth minute of the duty; null where it is not known."""

    m1_w: int | None
    m5_w: int | None
    m15_w: int | None


class CmdReport(TypedDict):
    """How an order was obeyed: :func:`wire.obedience.report` over the records before this one. ``docs/protocol.md``
    defines every figure.

    ``parts`` is how many parts of the trace it rests on, ``slots_n`` how many records of ``mp:<point>``.
    """

    id: str
    basis: str
    method: str
    point: str
    contracted_w: int
    before_w: int | None
    target_w: int | None
    grace_s: int
    begin: int
    end: int
    parts: int
    slots_n: int
    baseline: Baseline
    delivered_permille: int | None
    shortfall_wh: int | None
    t50_ms: int | None
    t90_ms: int | None
    t100_ms: int | None
    mw: MinutePower
    hold_permille: int | None
    overshoot_w: int | None
    rebound_w: int | None
    missing_permille: int | None
    excuses: list[str]
    verdict: str
    floor_w: NotRequired[int]
    """Of a schedule: below which no hour's limit counts."""
    hours: NotRequired[list[list[int]]]
    """Of a schedule, at most the first 744: [begin s, limit W, windows, known, met] of each hour with a window."""
    uq: NotRequired[list[SupplyFigures]]
    """Absent where the trace has none."""
    storage: NotRequired[StorageShare]
    """Of an order by net import, where the trace has ``bat``."""
