"""For finance: what reconciliation found, webhooks, lanes and customers, and contracts brought to Stripe."""

import datetime as dt
from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.decorators import action

from billing import provisioning, reconciling, stripe_client
from billing.models import (
    ContractAtStripe,
    ReconciliationRun,
    StripeCustomer,
    StripeEvent,
    StripeInvoice,
    StripeLane,
    StripeSubscription,
)
from keys import audit
from keys.admin.acts import Act, confirmation
from keys.admin.forms import NothingMore
from keys.admin.read_only import ReadOnly
from keys.models import Partner

_COMPARED: Final = f"The books of the last {reconciling.DEFAULT_DAYS} days are compared with Stripe."
_COMPARE: Final = Act("compare_now", "Compare now", _COMPARED, "compare", form=NothingMore, is_harmful=False)
_REPAIR: Final = Act(
    "repair_now",
    "Repair what is safe",
    f"{_COMPARED} What was not charged is charged, and what was not sent is sent, or billed as an item.",
    "build",
)


@admin.register(ReconciliationRun)
class ReconciliationRunAdmin(ReadOnly):
    list_display = ("started_at", "starts_at", "ends_at", "partner", "variance_count", "repaired", "error")
    list_select_related = ("partner",)
    ordering = ("-started_at",)
    fields = ("started_at", "starts_at", "ends_at", "partner", "actor", "error", "repaired", "found")
    readonly_fields = fields
    actions_list = ("compare_now", "repair_now")

    @admin.display(description="variances")
    def variance_count(self, run: ReconciliationRun) -> int:
        return run.total

    @admin.display(description="variances")
    def found(self, run: ReconciliationRun) -> str:
        if not run.variances:
            return "none"
        names = {str(partner.pk): partner.name for partner in Partner.objects.all()}
        rows = (
            (
                one["day"],
                one["kind"],
                names.get(one["partner_id"], ""),
                one["subject"],
                one["detail"],
                one["repair"],
            )
            for one in run.variances
        )
        cells = "<tr>" + "<td style='padding:2px 12px 2px 0'>{}</td>" * 6 + "</tr>"
        return format_html("<table>{}</table>", format_html_join("", cells, rows))

    @action(description="Compare now", permissions=["run"])
    def compare_now(self, request: HttpRequest) -> HttpResponse:
        return self._run(request, _COMPARE, is_repairing=False)

    @action(description="Repair what is safe", permissions=["run"])
    def repair_now(self, request: HttpRequest) -> HttpResponse:
        return self._run(request, _REPAIR, is_repairing=True)

    def has_run_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("billing.run_reconciliationrun"))

    def _run(self, request: HttpRequest, act: Act, *, is_repairing: bool) -> HttpResponse:
        form = act.form(request.POST if request.method == "POST" else None)
        if not form.is_valid():  # unfold's buttons are links
            back = reverse("admin:billing_reconciliationrun_changelist")
            return confirmation(self, request, act, form, about=None, back=back)
        end = timezone.now()
        run = reconciling.run(
            end - dt.timedelta(days=reconciling.DEFAULT_DAYS),
            end,
            actor=audit.Actor.staff(request),
            is_repairing=is_repairing,
            **form.cleaned_data,
        )
        self.message_user(
            request,
            run.error or f"{run.total} variances, {run.repaired} repaired.",
            messages.SUCCESS if run.is_clean else messages.ERROR,
        )
        return HttpResponseRedirect(reverse("admin:billing_reconciliationrun_change", args=[run.pk]))


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnly):
    list_display = ("received_at", "kind", "state", "note", "customer_id", "livemode", "attempts")
    list_filter = ("state", "kind", "livemode")
    search_fields = ("=event_id", "=object_id", "=customer_id")
    ordering = ("-received_at",)
    show_full_result_count = False


@admin.register(StripeLane)
class StripeLaneAdmin(ReadOnly):
    list_display = ("partner", "item", "failures", "next_attempt_at", "last_error")
    list_select_related = ("partner",)
    list_filter = ("partner",)


@admin.register(StripeCustomer)
class StripeCustomerAdmin(ReadOnly):
    list_display = ("partner", "customer_id", "card", "is_deleted", "livemode")
    list_select_related = ("partner",)
    search_fields = ("partner__name", "=customer_id")

    @admin.display(description="default payment method")
    def card(self, customer: StripeCustomer) -> str:
        if not customer.has_payment_method:
            return "none"
        number = f" •••• {customer.card_last4}" if customer.card_last4 else ""
        expires = f", {customer.card_expires}" if customer.card_expires else ""
        return f"{customer.card_brand}{number}{expires}"


@admin.register(StripeInvoice)
class StripeInvoiceAdmin(ReadOnly):
    list_display = ("invoice", "partner", "status", "is_held", "note", "starts_at", "ends_at")
    list_select_related = ("invoice__partner",)
    list_filter = ("is_held", "billing_reason")
    ordering = ("-starts_at",)

    @admin.display(ordering="invoice__partner__name")
    def partner(self, at_stripe: StripeInvoice) -> str:
        return at_stripe.invoice.partner.name

    @admin.display(ordering="invoice__status")
    def status(self, at_stripe: StripeInvoice) -> str:
        return at_stripe.invoice.status


@admin.register(StripeSubscription)
class StripeSubscriptionAdmin(ReadOnly):
    list_display = ("contract", "subscription_id", "starts_at", "ends_at")
    list_select_related = ("contract__partner",)


@admin.register(ContractAtStripe)
class ContractAtStripeAdmin(ReadOnly):
    list_display = ("partner", "version", "model", "starts_on", "provisioned_at", "stripe_subscription")
    list_select_related = ("partner", "stripe_subscription")
    list_filter = ("partner",)
    ordering = ("partner__name", "-version")
    actions = ("plan", "provision")

    def has_provision_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("billing.provision_contract"))

    @admin.action(description="Show the plan, make nothing", permissions=["provision"])
    def plan(self, request: HttpRequest, queryset: Any) -> None:
        self._run(request, queryset, is_dry_run=True)

    @admin.action(description="Bring to Stripe", permissions=["provision"])
    def provision(self, request: HttpRequest, queryset: Any) -> None:
        self._run(request, queryset, is_dry_run=False)

    def _run(self, request: HttpRequest, queryset: Any, *, is_dry_run: bool) -> None:
        if not stripe_client.is_configured():
            self.message_user(request, "STRIPE_SECRET_KEY is not set.", messages.ERROR)
            return
        for contract in queryset.select_related("partner").prefetch_related("prices"):
            try:
                steps = provisioning.provision(contract, audit.Actor.staff(request), is_dry_run=is_dry_run)
            except (provisioning.NotNow, stripe_client.StripeFault) as fault:
                self.message_user(request, f"{contract}: {fault}", messages.ERROR)
                continue
            plan = format_html_join("", "<div>{}</div>", ((str(step),) for step in steps))
            self.message_user(request, format_html("{}{}", contract, plan))
