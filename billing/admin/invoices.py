"""Invoices: filtered by status, age and partner, with their totals; and why a line is what it is.

Those that no Stripe collects are made final and marked as paid here.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import answers, invoicing, settling
from billing.admin.base import ExportingAdmin, amount
from billing.models import Invoice, InvoiceLine
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ReasonForm
from keys.audit import Actor

_ENTRIES_A_PAGE = 100


class AgeFilter(admin.SimpleListFilter):
    """How long an open invoice is overdue, as finance chases it."""

    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("due", "open, not due yet"),
            ("0", "overdue"),
            ("30", "overdue 30 days"),
            ("90", "overdue 90 days"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
        now, value = timezone.now(), self.value()
        if value is None:
            return queryset
        still_open = queryset.filter(status=Invoice.Status.OPEN)
        if value == "due":
            return still_open.filter(Q(due_at=None) | Q(due_at__gt=now))
        return still_open.filter(due_at__lte=now - dt.timedelta(days=int(value)))


class PaymentForm(ReasonForm):
    reference = forms.CharField(
        max_length=100,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What the payment is found by: a cheque's number, a line of the bank statement.",
    )
    field_order = ("reference", "reason")


@admin.register(Invoice)
class InvoiceAdmin(ActingAdmin, ExportingAdmin):
    list_display = ("name", "partner", "period", "status", "sent", "sum", "due", "due_at", "created_at")
    list_filter = ("status", AgeFilter, "origin", "currency", "partner")
    list_select_related = ("partner", "period")
    search_fields = ("=number", "=stripe_invoice_id", "partner__name")
    show_full_result_count = False
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("name", "partner", "period", "status", "sent", "origin")}),
        ("Amounts", {"fields": ("lines_of_it", "sum", "due", "currency")}),
        ("Times", {"fields": ("created_at", "finalized_at", "due_at", "grace_ends_at", "paid_at")}),
        (
            "At Stripe",
            {"fields": ("stripe_invoice_id", "hosted_invoice_url", "last_payment_error", "synced_at")},
        ),
    )
    export_permission = "export_invoice"
    export_header = (
        "invoice",
        "partner",
        "period",
        "status",
        "sent",
        "currency",
        "total",
        "paid",
        "due",
        "due on (UTC)",
        "created (UTC)",
    )
    acts = (
        Act(
            "finalize",
            "Make final",
            "Invoice {object} gets its number and its due date, the partner is told by an event, and nothing "
            "can change it any more. Send it to the partner yourself: from now on it counts as sent.",
            "task_alt",
            is_harmful=False,
        ),
        Act(
            "mark_paid",
            "Mark as paid",
            "Invoice {object} was paid in full, by a cheque or a transfer. The partner is told by an event, "
            "and its orders are accepted at once where they waited for this. It can't be taken back here.",
            "payments",
            form=PaymentForm,
            is_harmful=False,
        ),
    )

    def is_open(self, act: Act, obj: Any) -> bool:
        needed = Invoice.Status.DRAFT if act.name == "finalize" else Invoice.Status.OPEN
        return bool(obj.origin == Invoice.Origin.LOCAL and obj.status == needed)

    def do_finalize(self, request: HttpRequest, invoice: Invoice, reason: str) -> str:
        settling.finalize(invoice, Actor.staff(request), reason=reason)
        self.log_change(request, invoice, f"Made final: {reason}")
        return f"The invoice is final; its number is {invoice.number}."

    def do_mark_paid(self, request: HttpRequest, invoice: Invoice, reference: str, reason: str) -> str:
        settling.mark_paid(invoice, Actor.staff(request), reference=reference, reason=reason)
        self.log_change(request, invoice, f"Marked as paid ({reference}): {reason}")
        return f"Invoice {invoice} is paid."

    @admin.display(description="invoice")
    def name(self, invoice: Invoice) -> str:
        return str(invoice)

    @admin.display(description="sent")
    def sent(self, invoice: Invoice) -> str:
        return "sent" if invoice.is_sent else "NOT SENT"

    @admin.display(description="total", ordering="total")
    def sum(self, invoice: Invoice) -> str:
        return amount(invoice.total, invoice.currency)

    @admin.display(description="due", ordering="amount_due")
    def due(self, invoice: Invoice) -> str:
        return amount(invoice.amount_due, invoice.currency)

    @admin.display(description="lines")
    def lines_of_it(self, invoice: Invoice) -> str:
        rows = (
            (
                line.description,
                line.quantity,
                "" if line.unit_price is None else f"{line.unit_price.normalize():f}",
                amount(line.amount, invoice.currency),
                reverse("admin:billing_invoice_why", args=[line.pk]),
            )
            for line in invoice.lines.all()
        )
        cells = "<td class='pr-6 text-right'>{}</td>" * 3
        row = (
            "<tr><td class='py-1 pr-6'>{}</td>"
            + cells
            + "<td><a class='underline' href='{}'>Why?</a></td></tr>"
        )
        body = format_html_join("", row, rows)
        head = "<tr><th class='text-left'>line</th><th class='pr-6'>quantity</th><th class='pr-6'>price</th>"
        return format_html("<table>" + head + "<th class='pr-6'>amount</th><th></th></tr>{}</table>", body)

    def totals(self, queryset: QuerySet[Invoice]) -> list[tuple[str, str]]:
        sums = (
            queryset.order_by()
            .values("status", "currency")
            .annotate(count=Count("pk"), sum=Sum("total"), due=Sum("amount_due"))
            .order_by("status", "currency")
        )
        return [
            (
                f"{row['count']} {row['status']}",
                f"{amount(row['sum'], row['currency'])}, due {amount(row['due'], row['currency'])}",
            )
            for row in sums
        ]

    def export_rows(self, queryset: QuerySet[Invoice]) -> Iterator[Sequence[Any]]:
        for invoice in queryset.select_related("partner", "period").iterator(2000):
            money = [
                Decimal(answers.money(value, invoice.currency))
                for value in (invoice.total, invoice.amount_paid, invoice.amount_due)
            ]
            yield (
                str(invoice),
                invoice.partner.name,
                str(invoice.period or ""),
                invoice.status,
                "yes" if invoice.is_sent else "no",
                invoice.currency,
                *money,
                invoice.due_at,
                invoice.created_at,
            )

    def get_urls(self) -> list[URLPattern]:
        why = self.admin_site.admin_view(self.why_view)
        return [path("line/<uuid:line_pk>/", why, name="billing_invoice_why"), *super().get_urls()]

    def why_view(self, request: HttpRequest, line_pk: str) -> HttpResponse:
        """The entries behind a line, their exact sum, and where it was rounded."""
        self.may(request, "view_invoice")
        related = InvoiceLine.objects.select_related(
            "invoice__partner", "invoice__period", "contract__partner"
        )
        line = related.filter(pk=line_pk).first()
        if line is None:
            raise Http404
        entries = invoicing.entries_of(line).order_by("id")
        exact = entries.aggregate(sum=Sum("amount"), quantity=Sum("quantity"))
        page = Paginator(entries, _ENTRIES_A_PAGE).get_page(request.GET.get("p"))
        currency = line.invoice.currency
        rows = [(entry, amount(entry.amount_minor, currency)) for entry in page]
        return self.page(
            request,
            "why.html",
            f"Why is this line {amount(line.amount, currency)}?",
            line=line,
            unit_price=None if line.unit_price is None else f"{line.unit_price.normalize():f}",
            rounded=amount(line.amount, currency),
            exact=None if exact["sum"] is None else exact["sum"].normalize(),
            quantity=exact["quantity"],
            rows=rows,
            entries=page,
        )
