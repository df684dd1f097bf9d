"""Contracts: each version with its prices; a change starts from a copy of the latest one."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.forms.models import BaseInlineFormSet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from billing import contracts, cost_units, prices
from billing.models import Contract, Price
from keys import audit
from keys.admin.forms import SeenForm
from keys.models import Partner

_TERMS = (
    "model",
    "currency",
    "starts_on",
    "ends_on",
    "anchor_day",
    "payment_terms_days",
    "grace_days",
    "base_fee",
    "quota_mode",
    "cost_units",
    "notes",
)


class ContractForm(forms.ModelForm):
    cost_units = forms.JSONField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text=Contract._meta.get_field("cost_units").help_text,  # noqa: SLF001 - Django's documented name
    )

    class Meta:
        model = Contract
        fields = ("partner", *_TERMS)

    def clean_cost_units(self) -> dict[str, int]:
        table: dict[str, int] = self.cleaned_data["cost_units"] or {}
        if problems := cost_units.problems_of(table):
            raise ValidationError(problems)
        return table

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        partner, starts_on = cleaned.get("partner"), cleaned.get("starts_on")
        if partner and starts_on and (reason := contracts.why_not_from(partner, starts_on)):
            self.add_error("starts_on", reason)
        return cleaned


class NewVersionForm(SeenForm, ContractForm):
    """Refused where another was agreed or ended since its terms were copied: it would bring them back."""

    # The version that the page is a copy of, and its last day.
    copied: tuple[Any, ...] = ()

    def shown(self) -> Any:
        return self.copied


class PriceForm(forms.ModelForm):
    class Meta:
        model = Price
        fields = ("item", "after_quantity", "unit_price")

    def has_changed(self) -> bool:
        """A row copied from the version before is one that is wanted, though nothing in it was typed."""
        return bool(self.data.get(self.add_prefix("item")) or self.data.get(self.add_prefix("unit_price")))


class PriceFormSet(BaseInlineFormSet):
    def rows(self) -> list[contracts.PriceRow]:
        given = [
            form.cleaned_data for form in self.forms if form.cleaned_data and not form.cleaned_data["DELETE"]
        ]
        return [(row["item"], row["after_quantity"], row["unit_price"]) for row in given]

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        rows = self.rows()
        problems = prices.problems_of(self.instance.model, rows, self.instance.base_fee or Decimal(0))
        if problems:
            raise ValidationError(problems)


class PriceInline(TabularInline):
    model = Price
    form = PriceForm
    formset = PriceFormSet
    extra = 0

    def get_extra(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> int:
        return max(3, len(_copied_prices(request)) + 1) if obj is None else 0

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and bool(super().has_add_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None


class EndForm(SeenForm):
    last_day = forms.DateField(widget=UnfoldAdminDateWidget)
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)


class WithdrawForm(SeenForm):
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)


@admin.register(Contract)
class ContractAdmin(ModelAdmin):
    form = ContractForm
    inlines = (PriceInline,)
    list_display = ("partner", "version", "model", "currency", "base_fee", "starts_on", "ends_on", "state")
    list_filter = ("model", "currency", "partner")
    list_select_related = ("partner",)
    search_fields = ("partner__name",)
    autocomplete_fields = ("partner",)
    ordering = ("partner__name", "-version")
    change_form_template = "admin/billing/contract/change_form.html"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A contract's page is read; only a new version is written.
        return obj is None and bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Contract | None = None) -> Any:
        return ("version", "author", "created_at", "withdrawn_at", *_TERMS, "partner") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, **kwargs)
        form = super().get_form(request, obj, **{**kwargs, "form": NewVersionForm})
        latest = _copied(request)
        form.copied = (str(latest.pk), latest.ends_on) if latest else ()
        return form

    @admin.display(description="state")
    def state(self, contract: Contract) -> str:
        today = timezone.now().date()
        if contract.withdrawn_at:
            return "withdrawn"
        if contract.starts_on > today:
            return "to come"
        return "in force" if Contract.objects.in_force(contract.partner_id, today) == contract else "over"

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A new version begins as the latest one."""
        latest = _copied(request)
        given: dict[str, Any] = super().get_changeform_initial_data(request)
        if latest is None:
            return given
        copied = {name: getattr(latest, name) for name in _TERMS}
        return {**copied, "starts_on": timezone.now().date(), "ends_on": None, **given}

    def get_formset_kwargs(self, request: HttpRequest, obj: Any, inline: Any, prefix: str) -> dict[str, Any]:
        known: dict[str, Any] = super().get_formset_kwargs(request, obj, inline, prefix)
        if request.method == "GET" and (copied := _copied_prices(request)):
            known["initial"] = copied
        return known

    def save_model(self, request: HttpRequest, obj: Contract, form: Any, change: bool) -> None:
        """Saved with its prices, in save_related."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        terms = {name: form.cleaned_data[name] for name in _TERMS}
        rows = [row for formset in formsets for row in formset.rows()]
        for formset in formsets:  # the log of the admin asks what each has saved
            formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        contracts.agree(
            form.cleaned_data["partner"], {"id": form.instance.pk, **terms}, rows, audit.Actor.staff(request)
        )

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("<uuid:contract_pk>/end/", site(self.end_view), name="billing_contract_end"),
            path("<uuid:contract_pk>/withdraw/", site(self.withdraw_view), name="billing_contract_withdraw"),
            *super().get_urls(),
        ]

    def end_view(self, request: HttpRequest, contract_pk: str) -> HttpResponse:
        def end(contract: Contract, actor: audit.Actor, *, last_day: dt.date, reason: str) -> None:
            contracts.end(contract, last_day, actor, reason=reason)

        return self._act(request, contract_pk, EndForm, "End", end)

    def withdraw_view(self, request: HttpRequest, contract_pk: str) -> HttpResponse:
        return self._act(request, contract_pk, WithdrawForm, "Withdraw", contracts.withdraw)

    def _act(
        self,
        request: HttpRequest,
        contract_pk: str,
        form_class: type[SeenForm],
        verb: str,
        act: Callable[..., None],
    ) -> HttpResponse:
        """`act(contract, actor, …)` is called with what the form has."""
        if not request.user.has_perm("billing.change_contract"):
            raise PermissionDenied
        contract = Contract.objects.select_related("partner").filter(pk=contract_pk).first()
        if contract is None:
            raise Http404
        form = form_class(request.POST or None, shown=(contract.ends_on, contract.withdrawn_at))
        if request.method == "POST" and form.is_valid():
            try:
                act(contract, audit.Actor.staff(request), **form.cleaned_data)
            except ValidationError as error:
                form.add_error(None, error)
            else:
                self.message_user(request, f"{contract}: done.")
                return HttpResponseRedirect(reverse("admin:billing_contract_change", args=[contract.pk]))
        shared = {**self.admin_site.each_context(request), "opts": self.opts}
        context = {**shared, "form": form, "title": f"{verb} {contract}", "verb": verb}
        return TemplateResponse(request, "admin/billing/form.html", context)


def _copied(request: HttpRequest) -> Contract | None:
    """The latest version of the partner that the address names."""
    try:
        partner = Partner.objects.filter(pk=request.GET.get("partner", "")).first()
    except ValidationError:
        return None
    return partner.contracts.standing().order_by("-version").first() if partner else None


def _copied_prices(request: HttpRequest) -> list[dict[str, Any]]:
    latest = _copied(request)
    rows = latest.prices.all() if latest else []
    return [
        {
            "item": price.item,
            "after_quantity": price.after_quantity,
            "unit_price": price.unit_price.normalize(),
        }
        for price in rows
    ]
