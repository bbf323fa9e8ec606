"""Bars and sparklines as SVG, in the colours of the theme around them. Each says in words what it shows."""

from __future__ import annotations

from html import escape

from .model import Bar

_WIDTH, _HEIGHT = 220, 28
_POINTS = 60
# From where on a whole is nearly full.
_WARN = 0.9


def draw_bar(bar: Bar) -> str:
    """Return a bar, with the line of its history behind it."""
    fraction = bar.fraction
    filled = 0.0 if fraction is None else min(1.0, max(0.0, fraction)) * _WIDTH
    is_full = fraction is not None and fraction >= _WARN
    label = f"{bar.label}: {bar.text}" + _describe_history(bar.history)
    return (
        f'<svg class="jpa-bar{" jpa-full" if is_full else ""}" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect class="jpa-track" width="{_WIDTH}" height="{_HEIGHT}"></rect>'
        f'<rect class="jpa-part" width="{filled:.1f}" height="{_HEIGHT}"></rect>'
        f"{''.join(_draw_line(points) for points in _split(bar.history))}</svg>"
    )


def _split(history: tuple[float | None, ...]) -> list[list[tuple[float, float]]]:
    """Return the points of each stretch without a gap; the newest is at the right edge."""
    recent = history[-_POINTS:]
    first = _POINTS - len(recent)
    parts: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(recent):
        if value is None:
            parts.append([])
        else:
            x = (first + index) * _WIDTH / (_POINTS - 1)
            parts[-1].append((x, _HEIGHT * (1 - min(1.0, max(0.0, value)))))
    return [part for part in parts if len(part) > 1]


def _draw_line(points: list[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="jpa-line" points="{path}"></polyline>'


def _describe_history(history: tuple[float | None, ...]) -> str:
    known = [value for value in history[-_POINTS:] if value is not None]
    return f"; at most {max(known) * 100:.0f} % lately" if len(known) > 1 else ""
