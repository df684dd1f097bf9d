"""Partners for staff: make one, edit its quotas, suspend it and take it back."""

from typing import Any, Final

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from keys import lifecycle
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ModelEditForm
from keys.audit import Actor
from keys.models import Partner

STATUSES = {Partner.Status.ACTIVE: "success", Partner.Status.SUSPENDED: "danger"}
_SET: Final = ("partner.suspended", "partner.reactivated")


@admin.register(Partner)
class PartnerAdmin(ActingAdmin):
    edit_form = ModelEditForm
    list_display = ("name", "state", "contact_email", "keys_in_use", "key_max_age_days", "created_at")
    list_filter = ("status",)
    search_fields = ("name", "contact_email")
    ordering = ("name",)
    fields = (
        "name",
        "contact_email",
        "monthly_deed_quota",
        "monthly_request_quota",
        "budget_cap",
        "key_max_age_days",
    )
    acts = (
        Act(
            "suspend",
            "Suspend",
            "All keys of {object} are refused from now on, until it is reactivated.",
            "pause_circle",
            overtaken_by=_SET,
        ),
        Act(
            "reactivate",
            "Reactivate",
            "The keys of {object} that were not revoked work again from now on.",
            "play_circle",
            permission="suspend",
            is_harmful=False,
            overtaken_by=_SET,
        ),
    )

    def get_fields(self, request: HttpRequest, obj: Partner | None = None) -> Any:
        if obj is None:
            return self.fields
        asked = ("reason", "seen") if self.is_edited(request, obj) else ()
        return (*self.fields, *asked, "status", "id", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Partner | None = None) -> Any:
        return ("status", "id", "created_at") if obj else ()

    def is_open(self, act: Act, obj: Any) -> bool:
        return bool((act.name == "suspend") == (obj.status == Partner.Status.ACTIVE))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Partner]:
        partners: QuerySet[Partner] = super().get_queryset(request)
        return partners.annotate(keys_not_revoked=Count("api_keys", filter=Q(api_keys__revoked_at=None)))

    @display(description="status", ordering="status", label=STATUSES)
    def state(self, partner: Partner) -> Any:
        return partner.status

    @admin.display(description="keys not revoked", ordering="keys_not_revoked")
    def keys_in_use(self, partner: Any) -> int:
        return int(partner.keys_not_revoked)

    def save_model(self, request: HttpRequest, obj: Partner, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if change:
            fields = {name: given[name] for name in form.changed_data if name in self.fields}
            lifecycle.change_partner(Actor.staff(request), obj, reason=given["reason"], **fields)
            return
        obj.pk = lifecycle.create_partner(Actor.staff(request), **given).pk
        obj.refresh_from_db()

    def do_suspend(self, request: HttpRequest, partner: Partner, reason: str) -> str:
        return self._set(request, partner, Partner.Status.SUSPENDED, reason)

    def do_reactivate(self, request: HttpRequest, partner: Partner, reason: str) -> str:
        return self._set(request, partner, Partner.Status.ACTIVE, reason)

    def _set(self, request: HttpRequest, partner: Partner, status: Partner.Status, reason: str) -> str:
        if not lifecycle.change_partner(Actor.staff(request), partner, status=status.value, reason=reason):
            return f"{partner} was {status.value} before."
        self.log_change(request, partner, f"{status.label}: {reason}")
        return f"{partner} is {status.value}."
