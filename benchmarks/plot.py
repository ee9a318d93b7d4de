"""The plot: seconds by number of apps on logarithmic scales, a panel for each case, a line for each tool. Plain SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from html import escape
from typing import Any

CASES = {
    "nothing": "nothing to do",
    "change": "one app's configuration",
    "redeploy": "one app's source",
    "first": "first deploy",
}
#: A tool has its colour and its mark in every panel (Okabe and Ito's colours, which colour-blind people tell apart).
STYLES = {
    "ansible": ("Ansible", "#D55E00", "square"),
    "mitogen": ("Ansible with mitogen", "#E69F00", "diamond"),
    "pyinfra": ("pyinfra", "#56B4E9", "triangle"),
    "deploykit": ("deploykit", "#009E73", "circle"),
    "limit": ("the limit: a shell script", "#000000", "cross"),
}
WIDTH, HEIGHT = 1000, 430
_TOP, _BOTTOM, _LEFT, _GAP, _PANEL = 64, 88, 58, 16, 219
_APPS = (1, 10, 30)
_INK, _GRID = "#333333", "#DDDDDD"
Cells = Mapping[tuple[Any, ...], list[dict[str, Any]]]


def drawn(cells: Cells) -> str:
    """The whole picture, of the runs on near hosts."""
    medians = {
        (case, tool, apps): statistics.median(line["wall"] for line in runs)
        for (case, tool, apps, far), runs in cells.items()
        if not far
    }
    values = list(medians.values()) or [1.0]
    low, high = _step_below(min(values) / 1.1), _step_above(max(values) * 1.1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{_INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(
            _LEFT,
            24,
            "Seconds from command to prompt, by number of apps",
            size=16,
            anchor="start",
            bold=True,
        ),
    ]
    for index, (case, title) in enumerate(CASES.items()):
        left = _LEFT + index * (_PANEL + _GAP)
        parts += _panel(left, title, {key[1:]: value for key, value in medians.items() if key[0] == case}, low, high)
        if index == 0:
            parts += [_text(left - 8, _y(tick, low, high) + 4, f"{tick:g}", anchor="end") for tick in _ticks(low, high)]
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, "seconds, logarithmic")}</g>')
    parts += _legend([tool for tool in STYLES if any(key[1] == tool for key in medians)])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(left: float, title: str, medians: Mapping[tuple[Any, ...], float], low: float, high: float) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = [_text(left + _PANEL / 2, _TOP - 12, title, size=13, bold=True)]
    parts += [_line(left, _y(tick, low, high), left + _PANEL, _y(tick, low, high), _GRID) for tick in _ticks(low, high)]
    for apps in _APPS:
        x = _x(left, apps)
        parts += [_line(x, bottom, x, bottom + 5, _INK), _text(x, bottom + 19, str(apps))]
    parts.append(f'<rect x="{left}" y="{_TOP}" width="{_PANEL}" height="{bottom - _TOP}" fill="none" stroke="{_INK}"/>')
    parts.append(_text(left + _PANEL / 2, bottom + 37, "apps"))
    for tool, (_, colour, mark) in STYLES.items():
        points = [(_x(left, apps), _y(medians[(tool, apps)], low, high)) for apps in _APPS if (tool, apps) in medians]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_mark(x, y, colour, mark) for x, y in points]
    return parts


def _legend(tools: list[str]) -> list[str]:
    parts = []
    x, y = float(_LEFT), HEIGHT - 20
    for tool in tools:
        name, colour, mark = STYLES[tool]
        parts += [
            f'<line x1="{x}" y1="{y}" x2="{x + 30}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
            _mark(x + 15, y, colour, mark),
            _text(x + 37, y + 4, name, anchor="start"),
        ]
        x += 37 + 7 * len(name) + 28
    return parts


def _x(left: float, apps: int) -> float:
    inner = 26
    return left + inner + (_PANEL - 2 * inner) * math.log(apps / _APPS[0]) / math.log(_APPS[-1] / _APPS[0])


def _y(value: float, low: float, high: float) -> float:
    bottom = HEIGHT - _BOTTOM
    return bottom - (bottom - _TOP) * math.log(value / low) / math.log(high / low)


def _ticks(low: float, high: float) -> list[float]:
    steps = [digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5)]
    return [step for step in steps if low * 0.999 <= step <= high * 1.001]


def _step_below(value: float) -> float:
    return max(step for step in _ticks(1e-3, 5e4) if step <= value)


def _step_above(value: float) -> float:
    return min(step for step in _ticks(1e-3, 5e4) if step > value)


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _mark(x: float, y: float, colour: str, kind: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    if kind == "cross":
        arms = f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"
        return f'<path d="{arms}" stroke="{colour}" stroke-width="2.5"/>'
    shapes = {
        "square": f"M{x - 4.5:.1f} {y - 4.5:.1f}h9v9h-9z",
        "diamond": f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z",
        "triangle": f"M{x:.1f} {y - 6:.1f}l6 10h-12z",
    }
    return f'<path d="{shapes[kind]}" fill="{colour}"/>'
