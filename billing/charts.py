"""Charts as SVG, drawn here: nothing is fetched, and nothing has to run in the browser.

Colours are attributes of the drawing, not styles, so that a strict Content-Security-Policy lets them be.
"""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

WIDTH: Final = 640
HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 10, 24
_INNER_WIDTH: Final = WIDTH - _LEFT - _RIGHT
_INNER_HEIGHT: Final = HEIGHT - _TOP - _BOTTOM
_TICKS: Final = 4
_MAX_DATES: Final = 7
# Each a quarter of which can be read, too.
_STEPS: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)

Number = float | None


@dataclass(frozen=True)
class Series:
    """One colour of a chart. A value of None leaves a gap."""

    name: str
    colour: str
    values: Sequence[Number]


def bars(
    title: str,
    periods: Sequence[dt.datetime],
    stacked: Sequence[Series],
    *,
    unit: str = "",
    is_count: bool = False,
) -> SafeString:
    """Bars for each period, the series one on the other, what is negative below zero.

    Of a count the axis shows whole numbers only.
    """
    values = [[one.values[index] or 0 for one in stacked] for index in range(len(periods))]
    highest = max((sum(value for value in many if value > 0) for many in values), default=0)
    lowest = min((sum(value for value in many if value < 0) for many in values), default=0)
    ticks = _ticks(lowest, highest, is_count=is_count)
    zero, of_one = _TOP + ticks[-1] * _scale(ticks), _scale(ticks)
    slot = _INNER_WIDTH / max(len(periods), 1)
    width = max(slot * 0.8, 0.5)
    drawn = []
    for index, period in enumerate(periods):
        up, down = zero, zero
        for one, value in zip(stacked, values[index], strict=True):
            height = abs(value) * of_one
            if not height:
                continue
            if value > 0:
                y = up = up - height
            else:
                y, down = down, down + height
            drawn.append(
                (
                    _number(_LEFT + slot * index + (slot - width) / 2),
                    _number(y),
                    _number(width),
                    _number(height),
                    one.colour,
                    f"{_moment(period)}: {_amount(value)}{unit} {one.name}",
                )
            )
    rectangles = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"><title>{}</title></rect>',
        drawn,
    )
    return _frame(title, periods, stacked, rectangles, ticks=ticks, unit=unit)


def lines(
    title: str, periods: Sequence[dt.datetime], many: Sequence[Series], *, unit: str = ""
) -> SafeString:
    """A line for each series, with a dot for each value."""
    highest = max((value for one in many for value in one.values if value is not None), default=0)
    ticks = _ticks(0, highest)
    slot = _INNER_WIDTH / max(len(periods), 1)
    parts = []
    for one in many:
        path, dots, is_drawing = [], [], False
        for index, value in enumerate(one.values):
            if value is None:
                is_drawing = False
                continue
            x = _number(_LEFT + slot * (index + 0.5))
            y = _number(_TOP + (ticks[-1] - value) * _scale(ticks))
            path.append(f"{'L' if is_drawing else 'M'}{x} {y}")
            dots.append((x, y, one.colour, f"{_moment(periods[index])}: {_amount(value)}{unit} {one.name}"))
            is_drawing = True
        parts.append(
            format_html(
                '<path d="{}" fill="none" stroke="{}" stroke-width="1.5"/>{}',
                " ".join(path),
                one.colour,
                format_html_join(
                    "", '<circle cx="{}" cy="{}" r="2" fill="{}"><title>{}</title></circle>', dots
                ),
            )
        )
    return _frame(
        title, periods, many, format_html_join("", "{}", ((part,) for part in parts)), ticks=ticks, unit=unit
    )


def _frame(
    title: str,
    periods: Sequence[dt.datetime],
    many: Sequence[Series],
    content: SafeString,
    *,
    ticks: Sequence[float],
    unit: str,
) -> SafeString:
    grid = format_html_join(
        "",
        '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-opacity="0.15"/>'
        '<text x="{}" y="{}" text-anchor="end" font-size="11" fill="currentColor">{}</text>',
        (
            (_LEFT, WIDTH - _RIGHT, y, y, _LEFT - 6, y + 4, f"{_amount(tick)}{unit}")
            for tick in ticks
            for y in (round(_TOP + (ticks[-1] - tick) * _scale(ticks)),)
        ),
    )
    slot = _INNER_WIDTH / max(len(periods), 1)
    every = max(1, math.ceil(len(periods) / _MAX_DATES))
    is_by_hour = len(periods) > 1 and periods[1] - periods[0] < dt.timedelta(days=1)
    room = 34 if is_by_hour else 18  # half a date
    dates = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="middle" font-size="11" fill="currentColor">{}</text>',
        (
            (
                _number(_LEFT + slot * (index + 0.5)),
                HEIGHT - 6,
                f"{period:%d %b %H:%M}" if is_by_hour else f"{period:%d %b}",
            )
            for index, period in enumerate(periods)
            if index % every == 0 and slot * (len(periods) - index - 0.5) > room
        ),
    )
    legend = format_html_join(
        "",
        '<span class="inline-flex items-center gap-1"><svg width="10" height="10" aria-hidden="true">'
        '<rect width="10" height="10" rx="2" fill="{}"/></svg>{}</span>',
        ((one.colour, one.name) for one in many),
    )
    return format_html(
        '<svg viewBox="0 0 {} {}" width="100%" role="img" aria-label="{}" font-family="inherit">{}{}{}</svg>'
        '<div class="flex flex-wrap gap-4 mt-2 text-sm">{}</div>',
        WIDTH,
        HEIGHT,
        title,
        grid,
        content,
        dates,
        legend or mark_safe(""),
    )


def _ticks(lowest: float, highest: float, *, is_count: bool = False) -> list[float]:
    """The values that the axis names, zero among them, from `lowest` (where it is negative) to `highest`."""
    step = _ceiling(max(highest, -lowest), is_count=is_count) / _TICKS
    if lowest >= 0:
        return [step * number for number in range(_TICKS + 1)]
    below, above = math.ceil(-lowest / step - 1e-4), max(math.ceil(highest / step - 1e-4), 0)
    return [step * number for number in range(-below, above + 1)]


def _scale(ticks: Sequence[float]) -> float:
    """The height of one unit."""
    return _INNER_HEIGHT / (ticks[-1] - ticks[0])


def _ceiling(value: float, *, is_count: bool = False) -> float:
    """The next round number, so that the axis can be read."""
    top = 1.0
    if value > 0:
        power = 10.0 ** math.floor(math.log10(value))
        top = next(step * power for step in _STEPS if step * power >= value * 0.9999)
    return float(math.ceil(top / _TICKS) * _TICKS) if is_count else top


def _amount(value: float) -> str:
    if abs(value) >= 1_000_000:  # noqa: PLR2004 - as it is read
        return f"{value / 1_000_000:.3g}M"
    if abs(value) >= 10_000:  # noqa: PLR2004 - the same
        return f"{value / 1000:.4g}k"
    return f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _moment(value: dt.datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M}"
