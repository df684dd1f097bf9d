"""The dashboard in the admin, and its export. Who has `billing.view_analytics` sees it, and only that."""

import datetime as dt
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminSelectWidget

from billing import charts, dashboard, exports, usage_export
from billing.charts import Series
from billing.dashboard import PRESETS, Dashboard, Line
from billing.models import Analytics
from billing.pricing import exponent
from billing.usage import DAY, Question, Range
from keys.admin.read_only import ReadOnly
from keys.models import Partner

BLUE, RED, GREEN, AMBER, VIOLET = "#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed"
MODES: Final = {"live": True, "test": False}
_DEFAULT: Final = "30d"
_LONGEST: Final = 400 * DAY
# No usage is outside; the ends of the calendar leave no room for a day more.
_EARLIEST: Final = dt.date(2000, 1, 1)
_LATEST: Final = dt.date(2199, 12, 31)


class RangeForm(forms.Form):
    """The picker. `from` and `to` go before `range`; both days are included."""

    range = forms.ChoiceField(
        choices=[(name, label) for name, (label, _) in PRESETS.items()],
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    partner = forms.ModelChoiceField(
        Partner.objects.order_by("name"), required=False, empty_label="All", widget=UnfoldAdminSelectWidget
    )
    mode = forms.ChoiceField(
        choices=[("", "Live and test"), ("live", "Live"), ("test", "Test")],
        required=False,
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        # `from` is a word of Python's, so these can't be attributes of the class.
        for name in ("from", "to"):
            self.fields[name] = forms.DateField(
                required=False,
                widget=UnfoldAdminDateWidget(attrs={"type": "date"}),
                validators=[MinValueValidator(_EARLIEST), MaxValueValidator(_LATEST)],
            )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        first, last = cleaned.get("from"), cleaned.get("to")
        if first is None and last is None:
            return cleaned
        cleaned["to"] = last = last or timezone.now().date()
        cleaned["from"] = first = first or last - 30 * DAY
        if first > last:
            self.add_error("from", "It must not be after the last day.")
        elif last - first > _LONGEST:
            self.add_error("from", f"{_LONGEST.days} days at the most.")
        return cleaned

    def span(self) -> Range:
        now = timezone.now()
        cleaned = self.cleaned_data if self.is_valid() else {}
        first, last = cleaned.get("from"), cleaned.get("to")
        if first is None or last is None:
            return Range.around(now - PRESETS[cleaned.get("range") or _DEFAULT][1], now)
        return Range.around(_midnight(first), _midnight(last + DAY))


@admin.register(Analytics)
class AnalyticsAdmin(ReadOnly):
    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("", site(self.changelist_view), name="billing_analytics_changelist"),
            path("export.csv", site(self.export_view), name="billing_analytics_export"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The dashboard, in the place of a list that would say nothing."""
        form = self._form(request)
        found = dashboard.look(_question(form))
        context = {
            **self.admin_site.each_context(request),
            "title": "Analytics",
            "opts": self.model._meta,  # noqa: SLF001 - Django's documented name
            "form": form,
            "query": request.GET.urlencode(),
            "span": found.question.range,
            "cards": _cards(found),
            "charts": _charts(found),
            "tables": _tables(found),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/billing/analytics.html", context)

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The same range as a file. By the hour up to a week, else by the day."""
        question = _question(self._form(request))
        name = f"usage-{question.range.start:%Y-%m-%d}-{question.range.end:%Y-%m-%d}"
        return exports.respond(name, "csv", usage_export.COLUMNS, usage_export.rows(question))

    def _form(self, request: HttpRequest) -> RangeForm:
        """The picker as it was sent. Raises PermissionDenied."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        data = request.GET.copy()
        data.setdefault("range", _DEFAULT)
        return RangeForm(data)


def _question(form: RangeForm) -> Question:
    return dashboard.question_of(form.span(), partner=_partner(form), livemode=_livemode(form))


def _partner(form: RangeForm) -> UUID | None:
    chosen = form.cleaned_data.get("partner") if form.is_valid() else None
    return chosen.pk if chosen else None


def _livemode(form: RangeForm) -> bool | None:
    return MODES.get(form.cleaned_data.get("mode", "")) if form.is_valid() else None


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _cards(found: Dashboard) -> list[dict[str, str]]:
    total = found.total
    latency = total.as_dict()["latency_ms"]
    cards = [
        ("Requests", f"{total.requests:,}"),
        ("Errors", f"{total.errors:,} ({_share(Line('', total).error_rate)})"),
        ("Rate limited", f"{total.rate_limited:,}"),
        ("Deeds by request", f"{total.deeds:,}"),
        ("Latency p50", _milliseconds(latency["p50"])),
        ("Latency p95", _milliseconds(latency["p95"])),
    ]
    cards += [
        (f"Revenue, {name}", f"{sum(amounts):,.{exponent(name)}f}") for name, amounts in found.revenue.items()
    ]
    return [{"title": title, "value": value} for title, value in cards]


def _charts(found: Dashboard) -> list[dict[str, Any]]:
    periods, points, latency = found.periods, found.points, found.latency
    drawn = [
        (
            "Requests",
            charts.bars(
                "Requests",
                periods,
                [
                    Series("answered", BLUE, [point.requests - point.errors for point in points]),
                    Series("rate limited", AMBER, [point.rate_limited for point in points]),
                    Series("other errors", RED, [point.errors - point.rate_limited for point in points]),
                ],
                is_count=True,
            ),
        ),
        (
            "Latency",
            charts.lines(
                "Latency",
                periods,
                [
                    Series(name, colour, [one[name] for one in latency])
                    for name, colour in (("p50", GREEN), ("p95", AMBER), ("p99", RED))
                ],
                unit=" ms",
            ),
        ),
        (
            "Deeds by request",
            charts.bars(
                "Deeds",
                periods,
                [Series("deeds", VIOLET, [point.deeds for point in points])],
                is_count=True,
            ),
        ),
        (
            "Cost units",
            charts.bars(
                "Cost units",
                periods,
                [Series("units", BLUE, [point.cost_units for point in points])],
                is_count=True,
            ),
        ),
    ]
    drawn += [
        (
            f"Revenue, {name}",
            charts.bars("Revenue", periods, [Series(name, GREEN, [float(amount) for amount in amounts])]),
        )
        for name, amounts in found.revenue.items()
    ]
    return [{"title": title, "svg": svg} for title, svg in drawn]


def _tables(found: Dashboard) -> list[dict[str, Any]]:
    def of(title: str, name: str, lines: Any, *more: str) -> dict[str, Any]:
        headers = [name, "requests", "errors", *more]
        rows = [
            [
                line.name or "no route",
                f"{line.sums.requests:,}",
                f"{line.sums.errors:,} ({_share(line.error_rate)})",
                *(_cell(line, column) for column in more),
            ]
            for line in lines
        ]
        return {"title": title, "table": {"headers": headers, "rows": rows}}

    return [
        of("Top partners", "partner", found.partners, "deeds", "cost units"),
        of("Routes", "route", found.routes, "p50", "p95"),
        of("Rate-limited keys", "key", found.rate_limited, "rate limited"),
        of("Failing keys", "key", found.failing, "rate limited"),
        of("Statuses", "status", found.statuses),
    ]


def _cell(line: Line, column: str) -> str:
    if column in {"p50", "p95"}:
        return _milliseconds(line.sums.as_dict()["latency_ms"][column])
    return f"{getattr(line.sums, column.replace(' ', '_')):,}"


def _share(rate: float) -> str:
    return f"{rate:.1%}"


def _milliseconds(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004 - readable
