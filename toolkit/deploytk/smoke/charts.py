"""Charts as SVG in a page: what they show stands beside the marks, and no mark lies on another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
COLOURS = ("#0969da", "#2da44e", "#8c959f", "#bf8700", "#8250df", "#cf222e", "#1b7c83", "#6e7781")
_LETTER = 6.7  # pixels of a letter of 12 px, at most
_LINE = 15
_LEFT = 64.0
_MARGIN = 40.0


def figure(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def svg(height: float, title: str, marks: Iterable[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return f'<svg {size} role="img"><title>{escape(title)}</title>{"".join(marks)}</svg>'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "") -> str:
    fill = f' style="fill:{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = COLOURS[2], width: float = 1) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width:g}"/>'


def dot(x: float, y: float, colour: str, words: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"><title>{escape(words)}</title></circle>'


@dataclass(frozen=True, slots=True)
class Bar:
    """Parts that make a whole, in the order in which they are drawn."""

    name: str
    parts: tuple[tuple[str, float], ...]

    @property
    def whole(self) -> float:
        return sum(value for _, value in self.parts)


def stacked(title: str, bars: Sequence[Bar], unit: str) -> str:
    """A bar each: name and parts above it, the parts named in it where there is room, the whole at its end."""
    most = max((bar.whole for bar in bars), default=0.0)
    if not most:
        return ""
    room = WIDTH - _LETTER * len(f" {most:,.0f} {unit}") - 4
    marks = []
    for row, bar in enumerate(bars):
        y, x = 16.0 + row * 52, 0.0
        marks.append(text(0, y, f"{bar.name}: {', '.join(f'{name} {value:,.0f}' for name, value in bar.parts)}"))
        for (name, value), colour in zip(bar.parts, _colours(len(bar.parts)), strict=True):
            wide = max(0.0, value) / most * room
            said = f"{name} {value:,.0f}"
            marks.append(
                f'<rect x="{x:.1f}" y="{y + 5:.1f}" width="{wide:.1f}" height="24" fill="{colour}">'
                f"<title>{escape(said)} {unit}</title></rect>"
            )
            if _LETTER * len(name) + 8 < wide:
                marks.append(text(x + 4, y + 21, name, colour="#fff"))
            x += wide
        marks.append(text(x + 4, y + 21, f"{bar.whole:,.0f} {unit}"))
    return svg(len(bars) * 52 + 4, title, marks)


def spread(title: str, unit: str, points: Mapping[str, float]) -> str:
    """Named points of one distribution, on an axis of its own that begins at 0; no label lies on another."""
    known = sorted(points.items(), key=lambda point: point[1])
    most = known[-1][1] if known else 0.0
    if not most:
        return ""
    room, axis = WIDTH - 2 * _MARGIN, 46.0
    places = [_MARGIN + value / most * room for _, value in known]
    labels = [f"{name} {figure(value)}" for name, value in known]
    marks = [line(_MARGIN, axis, _MARGIN + room, axis), text(_MARGIN, axis + 22, "0", "middle")]
    marks.append(text(_MARGIN + room, axis + 22, f"{figure(most)} {unit}", "middle"))
    marks.append(line(places[0], axis, places[-1], axis, COLOURS[0], 5))
    for x, middle, said in zip(places, _beside(places, labels), labels, strict=True):
        marks += [
            line(x, axis - 7, x, axis + 7, COLOURS[0], 2),
            line(x, axis - 7, middle, 20),
            text(middle, 14, said, "middle"),
        ]
    return svg(axis + 28, title, marks)


def _beside(places: Sequence[float], labels: Sequence[str]) -> list[float]:
    """Middles for labels in one row, from left to right, as near to their places as their widths allow."""
    half = [(_LETTER * len(label) + 10) / 2 for label in labels]
    found = list(places)
    for at in range(1, len(found)):
        found[at] = max(found[at], found[at - 1] + half[at - 1] + half[at])
    found[-1] = min(found[-1], WIDTH - half[-1])
    for at in range(len(found) - 2, -1, -1):
        found[at] = min(found[at], found[at + 1] - half[at] - half[at + 1])
    return found


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio and how far it is known."""

    words: str
    low: float
    value: float
    high: float


def intervals(title: str, rows: Sequence[Interval], least: float) -> str:
    """Ratios over one logarithmic axis around 1, each below its words; what is less than `least` is shaded."""
    most = max([least**2, *(end for row in rows for end in (row.high, 1 / row.low))])
    room = WIDTH - 2 * _MARGIN
    high = 36.0 * len(rows) + 8

    def at(ratio: float) -> float:
        return _MARGIN + room * (math.log(ratio) / math.log(most) + 1) / 2

    left, right = at(1 / least), at(least)
    marks = []
    for row, y in zip(rows, itertools.count(16.0, 36.0), strict=False):
        marks += [
            text(0, y, row.words),
            f'<rect x="{left:.1f}" y="{y + 5:.1f}" width="{right - left:.1f}" height="14" fill="#8c959f33"/>',
            line(at(1), y + 5, at(1), y + 19),
            line(at(row.low), y + 12, at(row.high), y + 12, COLOURS[0], 5),
            dot(at(row.value), y + 12, COLOURS[0], f"{row.low:.3f} to {row.high:.3f}"),
        ]
    for place, words in _apart((at(tick), f"{tick:.2f}") for tick in (1.0, most, 1 / most, least, 1 / least)):
        marks.append(text(place, high + 16, words, "middle"))
    return svg(high + 22, title, marks)


def _apart(labels: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """Of labels with their middles, those that lie on none before."""
    taken: list[tuple[float, float]] = []
    for place, words in labels:
        half = (_LETTER * len(words) + 4) / 2
        if all(abs(place - other) >= half + wide for other, wide in taken):
            taken.append((place, half))
            yield place, words


def lines(title: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines by name, over a logarithmic axis whose marks are the values that were measured; named at their ends."""
    known = {name: sorted(points) for name, points in series.items() if points}
    places = sorted({x for points in known.values() for x, _ in points})
    most = max((y for points in known.values() for _, y in points), default=0.0)
    if not most:
        return ""
    top = _nice(most)
    names = max(len(name) for name in known)
    right, high = WIDTH - min(_LETTER * names + 14, WIDTH * 0.45), 300.0
    spread_x = math.log2(places[-1] / places[0]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        left = _LEFT + (right - _LEFT) * (math.log2(x / places[0]) / spread_x if len(places) > 1 else 0.5)
        return left, 16 + (high - 16) * (1 - y / top)

    marks = [mark for part in range(5) for mark in _grid(top * part / 4, at(places[0], top * part / 4)[1], right)]
    marks += [text(at(x, 0)[0], high + 18, f"{x:g}", "middle") for x in places]
    marks.append(text((_LEFT + right) / 2, high + 36, across, "middle"))
    ends = [at(*points[-1])[1] for points in known.values()]
    for (name, points), colour, y in zip(known.items(), _colours(len(known)), _parted(ends, high), strict=True):
        drawn = [at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y_:.1f}" for x, y_ in drawn)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [dot(x, y_, colour, f"{name}: {figure(p[1])}") for (x, y_), p in zip(drawn, points, strict=True)]
        marks.append(line(drawn[-1][0] + 5, drawn[-1][1], right + 8, y, colour))
        marks.append(text(right + 11, y + 4, name, colour=colour))
    return svg(high + 44, title, marks)


def _grid(value: float, y: float, right: float) -> tuple[str, str]:
    return line(_LEFT, y, right, y, "#8c959f55"), text(_LEFT - 6, y + 4, figure(value), "end")


def _nice(most: float) -> float:
    """The next number with one or two digits that a scale can end with."""
    step = 10.0 ** math.floor(math.log10(most))
    return next(step * part for part in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * part >= most)


def _colours(count: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(count)]


def _parted(wanted: Sequence[float], lowest: float) -> list[float]:
    """Heights for labels, as near to those wanted as a line's height between them allows."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    found = list(wanted)
    for before, this in itertools.pairwise(order):
        found[this] = max(found[this], found[before] + _LINE)
    beyond = found[order[-1]] - lowest if order else 0.0
    if beyond > 0:
        found[order[-1]] -= beyond
        for this, before in zip(order[::-1], order[-2::-1], strict=False):
            found[before] = min(found[before], found[this] - _LINE)
    return found
