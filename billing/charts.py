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
    """Bars for each period, the series one on the other. Of a count the axis shows whole numbers only."""
    sums = [sum(one.values[index] or 0 for one in stacked) for index in range(len(periods))]
    top = _ceiling(max(sums, default=0), is_count=is_count)
    slot = _INNER_WIDTH / max(len(periods), 1)
    width = max(slot * 0.8, 0.5)
    drawn = []
    for index, period in enumerate(periods):
        height_below = 0.0
        for one in stacked:
            value = one.values[index] or 0
            height = _INNER_HEIGHT * value / top
            if not height:
                continue
            drawn.append(
                (
                    _number(_LEFT + slot * index + (slot - width) / 2),
                    _number(_TOP + _INNER_HEIGHT - height_below - height),
                    _number(width),
                    _number(height),
                    one.colour,
                    f"{_moment(period)}: {_amount(value)}{unit} {one.name}",
                )
            )
            height_below += height
    rectangles = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" fill="{}"><title>{}</title></rect>',
        drawn,
    )
    return _frame(title, periods, stacked, rectangles, top=top, unit=unit)


def lines(
    title: str, periods: Sequence[dt.datetime], many: Sequence[Series], *, unit: str = ""
) -> SafeString:
    """A line for each series, with a dot for each value."""
    top = _ceiling(max((value for one in many for value in one.values if value is not None), default=0))
    slot = _INNER_WIDTH / max(len(periods), 1)
    parts = []
    for one in many:
        path, dots, is_drawing = [], [], False
        for index, value in enumerate(one.values):
            if value is None:
                is_drawing = False
                continue
            x = _number(_LEFT + slot * (index + 0.5))
            y = _number(_TOP + _INNER_HEIGHT * (1 - value / top))
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
        title, periods, many, format_html_join("", "{}", ((part,) for part in parts)), top=top, unit=unit
    )


def _frame(
    title: str,
    periods: Sequence[dt.datetime],
    many: Sequence[Series],
    content: SafeString,
    *,
    top: float,
    unit: str,
) -> SafeString:
    grid = format_html_join(
        "",
        '<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-opacity="0.15"/>'
        '<text x="{}" y="{}" text-anchor="end" font-size="11" fill="currentColor">{}</text>',
        (
            (_LEFT, WIDTH - _RIGHT, y, y, _LEFT - 6, y + 4, f"{_amount(top * tick / _TICKS)}{unit}")
            for tick in range(_TICKS + 1)
            for y in (round(_TOP + _INNER_HEIGHT * (1 - tick / _TICKS)),)
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


def _ceiling(value: float, *, is_count: bool = False) -> float:
    """The next round number, so that the axis can be read."""
    top = 1.0
    if value > 0:
        power = 10.0 ** math.floor(math.log10(value))
        top = next(step * power for step in _STEPS if step * power >= value * 0.9999)
    return float(math.ceil(top / _TICKS) * _TICKS) if is_count else top


def _amount(value: float) -> str:
    if value >= 1_000_000:  # noqa: PLR2004 - as it is read
        return f"{value / 1_000_000:.3g}M"
    if value >= 10_000:  # noqa: PLR2004 - the same
        return f"{value / 1000:.4g}k"
    return f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _moment(value: dt.datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M}"
