"""The ledger by partner with its running total, corrections, and what doesn't agree with it."""

import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import F, QuerySet, Sum, Window
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from billing import ledger, prices
from billing.admin import variances
from billing.admin.base import ExportingAdmin, amount
from billing.models import Contract, LedgerEntry
from billing.pricing import minor
from keys import audit
from keys.models import Partner


class CorrectionForm(forms.Form):
    partner = forms.ModelChoiceField(Partner.objects.order_by("name"), widget=UnfoldAdminSelectWidget)
    amount = forms.DecimalField(
        max_digits=12,
        decimal_places=3,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="In the contract's currency. Negative gives the partner a credit (a credit note).",
    )
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="The partner reads it on the invoice."
    )
    # One form is one correction, however often its button is pressed.
    token = forms.UUIDField(widget=forms.HiddenInput)

    def clean_amount(self) -> Decimal:
        value: Decimal = self.cleaned_data["amount"]
        if value == 0:
            raise forms.ValidationError("A correction of nothing changes nothing.")
        return value

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if "partner" in cleaned and "amount" in cleaned:
            contract = Contract.objects.in_force(cleaned["partner"].pk, timezone.now().date())
            exact = minor(cleaned["amount"], prices.currency_of(contract))
            if exact != int(exact):
                self.add_error("amount", "It has more decimals than the currency.")
            cleaned["minor"] = int(exact)
        return cleaned


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ExportingAdmin):
    list_display = (
        "occurred_at",
        "partner",
        "kind",
        "item",
        "quantity",
        "price",
        "charged",
        "running_total",
        "source",
        "sync_state",
    )
    list_filter = ("kind", "is_priced", "sync_state", "partner")
    list_select_related = ("partner", "period", "contract__partner")
    search_fields = ("=source_id", "reason")
    search_help_text = "A deed's id, whole, or words of a reason."
    date_hierarchy = "occurred_at"
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-id",)
    export_permission = "export_ledgerentry"
    export_header = (
        "occurred at (UTC)",
        "partner",
        "kind",
        "item",
        "deed type",
        "quantity",
        "unit price",
        "amount",
        "currency",
        "source",
        "source id",
        "contract version",
        "period",
        "reason",
        "author",
        "priced",
        "sync state",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[LedgerEntry]:
        entries: QuerySet[LedgerEntry] = super().get_queryset(request)
        total = Window(
            Sum("amount_minor"), partition_by=[F("partner"), F("currency")], order_by=F("id").asc()
        )
        return entries.annotate(total_so_far=total) if request.GET.get("partner__id__exact") else entries

    @admin.display(description="unit price")
    def price(self, entry: LedgerEntry) -> str:
        if not entry.is_priced:
            return "not priced"
        return f"{entry.unit_price.normalize():f}" if entry.kind in {"deed", "requests", "base_fee"} else ""

    @admin.display(description="amount", ordering="amount")
    def charged(self, entry: LedgerEntry) -> str:
        return amount(entry.amount_minor, entry.currency)

    @admin.display(description="running total")
    def running_total(self, entry: LedgerEntry) -> str:
        """Over the partner's whole ledger as filtered; shown once a partner is chosen."""
        total = getattr(entry, "total_so_far", None)
        return "choose a partner" if total is None else amount(total, entry.currency)

    @admin.display(description="source")
    def source(self, entry: LedgerEntry) -> str:
        return entry.reason or f"{entry.source_kind} {entry.source_id}"

    def totals(self, queryset: QuerySet[LedgerEntry]) -> list[tuple[str, str]]:
        if not queryset.query.where:
            return []  # the whole ledger's sum says nothing, and reading all of it takes long
        sums = (
            queryset.order_by().values("currency").annotate(sum=Sum("amount")).values_list("currency", "sum")
        )
        return [("Sum of this list", amount(total, currency)) for currency, total in sorted(sums)]

    def export_rows(self, queryset: QuerySet[LedgerEntry]) -> Iterator[Sequence[Any]]:
        for entry in queryset.select_related("partner", "period", "contract").iterator(2000):
            yield (
                entry.occurred_at,
                entry.partner.name,
                entry.kind,
                entry.item,
                entry.deed_type,
                entry.quantity,
                entry.unit_price.normalize(),
                Decimal(amount(entry.amount_minor, entry.currency).split()[0].replace(",", "")),
                entry.currency,
                entry.source_kind,
                entry.source_id,
                entry.contract.version if entry.contract else None,
                str(entry.period),
                entry.reason,
                entry.author,
                "yes" if entry.is_priced else "no",
                entry.sync_state,
            )

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("correct/", site(self.correct_view), name="billing_ledgerentry_correct"),
            path(
                "reconcile/",
                site(partial(variances.list_view, self)),
                name="billing_ledgerentry_reconcile",
            ),
            path(
                "reconcile/repair/",
                site(partial(variances.repair_view, self)),
                name="billing_ledgerentry_repair",
            ),
            *super().get_urls(),
        ]

    def correct_view(self, request: HttpRequest) -> HttpResponse:
        """Enters an adjustment or a credit note; it is in the running period's invoice."""
        self.may(request, "adjust_ledgerentry")
        initial = {"token": uuid.uuid4(), "partner": request.GET.get("partner")}
        form = CorrectionForm(request.POST or None, initial=initial)
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            entry = ledger.correct(
                given["partner"],
                given["minor"],
                reason=given["reason"],
                actor=audit.Actor.staff(request),
                source_id=str(given["token"]),
            )
            self.message_user(request, f"{entry.kind}: {amount(entry.amount_minor, entry.currency)}.")
            return HttpResponseRedirect(reverse("admin:billing_ledgerentry_change", args=[entry.pk]))
        title = "Adjustment or credit note"
        return self.page(request, "form.html", title, form=form, verb="Enter it")
