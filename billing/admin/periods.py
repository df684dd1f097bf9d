"""Billing periods: what is used of quotas and budgets, more for one, and what the running ones will cost."""

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import F, Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextInputWidget,
)

from billing import invoicing, periods, prices
from billing.admin.base import ReadOnlyAdmin, amount
from billing.models import BillingPeriod, Contract, Invoice
from billing.pricing import minor
from keys import audit
from keys.admin.forms import SeenForm
from keys.models import Partner

_PARTNERS_A_PAGE = 25


class GrantForm(SeenForm):
    deeds = forms.IntegerField(min_value=0, max_value=10**6, initial=0, widget=UnfoldAdminIntegerFieldWidget)
    requests = forms.IntegerField(
        min_value=0, max_value=10**9, initial=0, widget=UnfoldAdminIntegerFieldWidget
    )
    budget = forms.DecimalField(
        min_value=Decimal(0),
        max_digits=12,
        decimal_places=2,
        initial=Decimal(0),
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="In the period's currency.",
    )
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not any(cleaned.get(name) for name in ("deeds", "requests", "budget")):
            raise forms.ValidationError("Grant more of something.")
        return cleaned


@admin.register(BillingPeriod)
class BillingPeriodAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "partner", "deeds", "requests", "money", "extra", "closed_at")
    list_filter = (("closed_at", admin.EmptyFieldListFilter), "partner")
    list_select_related = ("partner",)
    search_fields = ("partner__name",)
    ordering = ("-starts_at", "partner__name")
    list_before_template = "admin/billing/above_periods.html"
    change_form_template = "admin/billing/billingperiod/change_form.html"

    @admin.display(description="deeds")
    def deeds(self, period: BillingPeriod) -> str:
        return _of(
            period.deeds_used, period.deeds_reserved, period.partner.monthly_deed_quota, period.extra_deeds
        )

    @admin.display(description="requests")
    def requests(self, period: BillingPeriod) -> str:
        return _of(period.requests_used, 0, period.partner.monthly_request_quota, period.extra_requests)

    @admin.display(description="charges of deeds")
    def money(self, period: BillingPeriod) -> str:
        return amount(period.money_used, prices.currency_in(period))

    @admin.display(description="granted extra")
    def extra(self, period: BillingPeriod) -> str:
        granted = {"deeds": period.extra_deeds, "requests": period.extra_requests}
        parts = [f"{number:,} {name}" for name, number in granted.items() if number]
        return ", ".join([*parts, *(["budget"] if period.extra_budget else [])])

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("preview/", site(self.preview_view), name="billing_billingperiod_preview"),
            path("<uuid:period_pk>/grant/", site(self.grant_view), name="billing_billingperiod_grant"),
            *super().get_urls(),
        ]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Every partner: what the running period will cost as it stands, and what is unpaid."""
        self.may(request, "view_billingperiod")
        page = Paginator(Partner.objects.order_by("name"), _PARTNERS_A_PAGE).get_page(request.GET.get("p"))
        return self.page(
            request,
            "preview.html",
            "Running periods and balances",
            rows=[_preview(partner) for partner in page],
            partners=page,
        )

    def grant_view(self, request: HttpRequest, period_pk: str) -> HttpResponse:
        """Raises what a partner may use in this period only."""
        self.may(request, "grant_billingperiod")
        period = BillingPeriod.objects.select_related("partner").filter(pk=period_pk).first()
        if period is None:
            raise Http404
        back = HttpResponseRedirect(reverse("admin:billing_billingperiod_change", args=[period.pk]))
        if period.closed_at is not None or period.ends_at <= timezone.now():
            message = "This period is over: grant more in the one that runs."
            self.message_user(request, message, messages.ERROR)
            return back
        # Two who were asked for the same would grant it twice.
        granted = (period.extra_deeds, period.extra_requests, period.extra_budget)
        form = GrantForm(request.POST or None, shown=granted)
        if request.method == "POST" and form.is_valid():
            _grant(period, form.cleaned_data, audit.Actor.staff(request))
            self.message_user(request, "Granted; orders are accepted at once.")
            return back
        title = f"More for {period.partner.name} in the period {period}"
        return self.page(request, "form.html", title, form=form, verb="Grant it")


@transaction.atomic
def _grant(period: BillingPeriod, given: dict[str, Any], actor: audit.Actor) -> None:
    BillingPeriod.objects.filter(pk=period.pk).update(
        extra_deeds=F("extra_deeds") + given["deeds"],
        extra_requests=F("extra_requests") + given["requests"],
        extra_budget=F("extra_budget") + minor(given["budget"], prices.currency_in(period)),
    )
    after = {name: given[name] for name in ("deeds", "requests", "budget") if given[name]}
    audit.record(
        actor,
        "quota.granted",
        period,
        partner=period.partner,
        after={**after, "period": str(period)},
        reason=given["reason"],
    )


def _preview(partner: Partner) -> dict[str, Any]:
    now = timezone.now()
    period = periods.at(partner, now)
    lines = invoicing.preview(period)
    unpaid = partner.invoices.filter(status=Invoice.Status.OPEN).values("currency")
    return {
        "partner": partner,
        "period": period,
        "contract": Contract.objects.in_force(partner.pk, now.date()),
        "lines": [(line.description, line.quantity, amount(line.amount, line.currency)) for line in lines],
        "totals": [amount(total, currency) for currency, total in invoicing.totals(lines).items()],
        "unpaid": [amount(row["due"], row["currency"]) for row in unpaid.annotate(due=Sum("amount_due"))],
        "unpriced": partner.ledger_entries.filter(is_priced=False, period=period).count(),
    }


def _of(used: int, reserved: int, quota: int | None, extra: int) -> str:
    held = f" + {reserved} open" if reserved else ""
    return f"{used:,}{held}" + ("" if quota is None else f" of {quota + extra:,}")
