"""The curve of an order as SVG: power, what was ordered, when. Where nothing was read there is a hole, not a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from central.pages.format import clock

WIDTH, HEIGHT = 720, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 26, 30
HOLE_MS = 15_000
"""Samples further apart are not joined."""
POWER, LIMIT, GRID, INK, MARK, HOLE = "#0b6e6e", "#b3261e", "#e3e8ee", "#2b3644", "#7a8797", "#f6e3cf"
FONT = "Libertinus Serif"


@dataclass(frozen=True, slots=True)
class Marks:
    """What is drawn beside the power: target and power before in W, begin and end of the duty in ms; and words."""

    target_w: int | None
    before_w: int | None
    begin: int
    end: int
    unit: str
    begin_words: str
    end_words: str


def lines_of(samples: Sequence[tuple[int, int | None]]) -> list[list[tuple[int, int]]]:
    """Runs of samples that belong together; a null, or more than 15 s without a sample, ends one."""
    runs: list[list[tuple[int, int]]] = [[]]
    for at, watt in samples:
        if runs[-1] and (watt is None or at - runs[-1][-1][0] > HOLE_MS):
            runs.append([])
        if watt is not None:
            runs[-1].append((at, watt))
    return [run for run in runs if run]


def draw(samples: Sequence[tuple[int, int | None]], marks: Marks) -> str:
    """The SVG document; text is in the papers' own font, numbers in MW or kW."""
    runs = lines_of(samples)
    first = min([at for at, _ in samples[:1]] + [marks.begin])
    last = max([at for at, _ in samples[-1:]] + [marks.end, first + 60_000])
    watts = [watt for run in runs for _, watt in run] + [w for w in (marks.target_w, marks.before_w) if w is not None]
    low, high = min(0, *watts, 0), max(*watts, 1000, 0)
    step = _step(high - low)
    top = -(-high // step) * step
    bottom = low // step * step

    def x(at: int) -> float:
        return LEFT + (at - first) * (WIDTH - LEFT - RIGHT) / (last - first)

    def y(watt: int) -> float:
        return TOP + (top - watt) * (HEIGHT - TOP - BOTTOM) / (top - bottom)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}" font-size="12">'
    ]
    for since, until in zip([run[-1][0] for run in runs], [run[0][0] for run in runs[1:]], strict=False):
        out.append(
            f'<rect x="{x(since):.1f}" y="{TOP}" width="{x(until) - x(since):.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="{HOLE}"/>'
        )
    for watt in range(bottom, top + 1, step):
        out.append(_line(LEFT, y(watt), WIDTH - RIGHT, y(watt), GRID))
        out.append(_text(LEFT - 6, y(watt) + 4, f"{watt / 1000:g}", "end"))
    out.append(_text(LEFT - 6, 12, marks.unit, "end"))
    for number in range(7):
        at = first + (last - first) * number // 6
        out.append(_text(x(at), HEIGHT - 10, clock(at)[:5], "middle"))
    for at, words, anchor in ((marks.begin, marks.begin_words, "start"), (marks.end, marks.end_words, "end")):
        out.append(_line(x(at), TOP, x(at), HEIGHT - BOTTOM, MARK, 'stroke-dasharray="2 3"'))
        out.append(_text(x(at) + (3 if anchor == "start" else -3), TOP - 5, words, anchor))
    if marks.before_w is not None:
        out.append(_line(x(first), y(marks.before_w), x(last), y(marks.before_w), MARK, 'stroke-dasharray="6 4"'))
    if marks.target_w is not None:
        level = y(marks.target_w)
        out.append(_line(x(marks.begin), level, x(marks.end), level, LIMIT, 'stroke-width="1.8"'))
    for run in runs:
        points = " ".join(f"{x(at):.1f},{y(watt):.1f}" for at, watt in run)
        if len(run) == 1:
            out.append(f'<circle cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="1.4" fill="{POWER}"/>')
        else:
            out.append(f'<polyline points="{points}" fill="none" stroke="{POWER}" stroke-width="1.6"/>')
    return "\n".join([*out, "</svg>"])


def _step(span: int) -> int:
    """Distance of the lines of the grid, W: 1, 2 or 5 times a power of ten, for four to nine lines."""
    step = 100
    while True:
        for factor in (1, 2, 5):
            if span <= 8 * step * factor:
                return step * factor
        step *= 10


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(words)}</text>'
