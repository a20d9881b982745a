"""The findings as one SVG: what a frame costs, and how late the slowest hundredth is as calls come up.

Knows shapes and colours; decides nothing.
"""

from __future__ import annotations

import math
from html import escape

from bench.peers import LABELS
from bench.summary import Figure, Spread, Summary, cpu, p99

WIDTH, ROW, LEFT, TOP = 860, 30, 270, 46
CHART_HEIGHT = 300
NOTE = 150  # room behind the longest bar
COLOURS = {
    "relay": "#0b7a75",
    "node": "#4c78a8",
    "fastapi": "#e08a1e",
    "by-the-book": "#b04a5a",
    "pipecat": "#8766a8",
    "epoll": "#777777",
}
LEAST_MS, MOST_MS = 0.1, 1000.0


def draw(summary: Summary, profile: str, calls: int) -> str:
    """Both charts, one below the other."""
    relays = [name for name in COLOURS if name in summary.relays(profile)]
    bars = _bars(summary, profile, relays, calls)
    below = TOP + ROW * len(relays) + 50
    lines = _lines(summary, profile, relays, below)
    height = below + CHART_HEIGHT + 60
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *bars,
            *lines,
            "</svg>\n",
        ]
    )


def _bars(summary: Summary, profile: str, relays: list[str], calls: int) -> list[str]:
    spreads: list[tuple[str, int, Spread]] = []
    for name in relays:
        step, spread = _unfilled(summary, profile, name, calls, cpu)
        if spread is not None:
            spreads.append((name, step, spread))
    scale = (WIDTH - LEFT - NOTE) / max((spread.most for _, _, spread in spreads), default=1)
    drawn = [
        _text(12, 24, f"CPU per frame there and back, µs, {calls} calls (bar: median, line: range)", "bold")
    ]
    for row, (name, step, spread) in enumerate(sorted(spreads, key=lambda each: each[2].median)):
        y = TOP + row * ROW
        least, middle, most = (size * scale for size in (spread.least, spread.median, spread.most))
        note = "" if step == calls else f" (at {step} calls)"
        drawn += [
            _text(12, y + 15, LABELS[name]),
            f'<rect x="{LEFT}" y="{y}" width="{middle:.1f}" height="20" fill="{COLOURS[name]}"/>',
            f'<path d="M{LEFT + least:.1f} {y + 10}H{LEFT + most:.1f}" stroke="#222222"/>',
            _text(LEFT + most + 8, y + 15, f"{spread.median:.0f}{note}"),
        ]
    return drawn


def _unfilled(
    summary: Summary, profile: str, relay: str, calls: int, figure: Figure
) -> tuple[int, Spread | None]:
    """The figure at `calls`, or at the most calls below that leave some of the core."""
    for step in reversed([step for step in summary.steps(profile) if step <= calls]):
        if summary.is_unfilled(profile, relay, step):
            return step, summary.spread(profile, relay, step, figure)
    return calls, None


def _lines(summary: Summary, profile: str, relays: list[str], top: int) -> list[str]:
    steps = summary.steps(profile)
    bottom, right = top + CHART_HEIGHT, WIDTH - 40
    spread_x = (right - 70) / math.log(max(*steps, 2) / min(steps)) if len(steps) > 1 else 0.0

    def x(calls: int) -> float:
        return 60 + math.log(calls / min(steps)) * spread_x

    def y(milliseconds: float) -> float:
        share = math.log(min(max(milliseconds, LEAST_MS), MOST_MS) / LEAST_MS) / math.log(MOST_MS / LEAST_MS)
        return bottom - share * (CHART_HEIGHT - 30)

    drawn = [
        _text(12, top + 4, "99th percentile of the way there and back, ms, by calls on one core", "bold")
    ]
    for tick in (0.1, 1, 10, 100, 1000):
        drawn.append(f'<line x1="60" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#dddddd"/>')
        drawn.append(_text(12, y(tick) + 4, f"{tick:g}"))
    drawn += [_text(x(calls) - 8, bottom + 18, str(calls)) for calls in steps]
    for row, name in enumerate(relays):
        points = [(calls, summary.spread(profile, name, calls, p99)) for calls in steps]
        dots = [(x(calls), y(spread.median)) for calls, spread in points if spread is not None]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in dots)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        drawn += [
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{COLOURS[name]}"/>'
            for across, down in dots
        ]
        legend = 60 + row % 3 * 260
        drawn.append(_text(legend, bottom + 36 + row // 3 * 16, LABELS[name], colour=COLOURS[name]))
    return drawn


def _text(x: float, y: float, text: str, weight: str = "normal", colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
