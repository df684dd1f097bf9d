"""Keys for staff: issue, edit, rotate, revoke. A key's text is shown once, in the answer itself."""

import datetime as dt
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from keys import lifecycle
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ModelEditForm, ReasonForm
from keys.audit import Actor
from keys.models import ApiKey
from keys.scopes import GRANTABLE

OVERLAPS: Final = (
    (0, "none: the old key ends at once"),
    (3600, "an hour"),
    (86_400, "a day"),
    (3 * 86_400, "3 days"),
    (7 * 86_400, "7 days"),
)
STATES: Final = {
    "active": "success",
    "rotated": "warning",
    "pending": "info",
    "expired": "danger",
    "revoked": "danger",
}


class NetworksField(forms.CharField):
    """Networks, one a line."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, list) else str(value or "").replace(",", " ").split()

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(initial) != self.to_python(data))

    def run_validators(self, value: Any) -> None:
        """The model says what a network is."""


class ApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in GRANTABLE],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        required=False,
        help_text="A key without a scope can do nothing.",
    )
    allowed_cidrs = NetworksField(
        label="Allowed networks",
        required=False,
        help_text="One a line, such as 203.0.113.0/24. Empty: from anywhere.",
    )

    class Meta:
        model = ApiKey
        fields = (
            "partner",
            "name",
            "environment",
            *(field for field in lifecycle.EDITABLE if field != "name"),
        )


class ApiKeyEditForm(ModelEditForm, ApiKeyForm):
    pass


class RotationForm(ReasonForm):
    overlap = forms.TypedChoiceField(
        choices=OVERLAPS,
        coerce=int,
        initial=86_400,
        label="How long the old key works beside the new one",
        widget=UnfoldAdminSelectWidget(),
    )
    field_order = ("overlap", "reason")


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("active", "active"),
            ("expiring", f"ends within {settings.KEY_WARNING_DAYS} days"),
            ("due", "due for rotation"),
            ("unused", "active, never used"),
            ("ended", "revoked or expired"),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = timezone.now()
        active = queryset.not_ended(now)
        match self.value():
            case "active":
                return active
            case "expiring":
                return active.filter(expires_at__lte=now + dt.timedelta(days=settings.KEY_WARNING_DAYS))
            case "due":
                return queryset.due_for_rotation(now)
            case "unused":
                return active.filter(last_used_at=None)
            case "ended":
                return queryset.ended(now)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ActingAdmin):
    form = ApiKeyForm
    edit_form = ApiKeyEditForm
    list_display = (
        "prefix",
        "partner",
        "name",
        "environment",
        "state",
        "last_used_at",
        "expires_at",
        "rotation",
        "created_at",
    )
    list_filter = (StateFilter, "environment", "partner")
    list_filter_submit = False
    list_select_related = ("partner",)
    search_fields = ("key_id", "name", "partner__name")
    autocomplete_fields = ("partner",)
    ordering = ("-created_at",)
    acts = (
        Act(
            "rotate",
            "Rotate",
            "A new key takes the place of {object}, with the same scopes, limits and networks. Its text is "
            "shown on the next page, once.",
            "autorenew",
            form=RotationForm,
            is_harmful=False,
        ),
        Act(
            "revoke",
            "Revoke",
            "Requests with {object} are refused from now on. This can't be undone; a new key can be issued.",
            "block",
        ),
    )

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Not by the secret's hash, which could be felt for letter by letter; so do Django's own users."""
        return not lookup.startswith("secret_sha256") and super().lookup_allowed(lookup, value, request)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ()
        shown = ("prefix", "created_at", "last_used_at", "last_used_address", "revoked_at", "revoked_reason")
        # A key that was rotated ends when its overlap does.
        of_rotation = ("replaced_by", "rotated_at", "expires_at") if obj.replaced_by_id else ()
        return (*shown, "partner", "environment", *of_rotation)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.revoked_at is None)

    def is_open(self, act: Act, obj: Any) -> bool:
        is_over = obj.revoked_at is not None
        return not is_over and (act.name != "rotate" or obj.replaced_by_id is None)

    @display(description="state", label=STATES)
    def state(self, key: ApiKey) -> str:
        return key.state_at(timezone.now())

    @admin.display(description="rotation due", empty_value="no policy")
    def rotation(self, key: ApiKey) -> dt.datetime | None:
        return key.rotation_due_at()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if change:
            fields = {name: given[name] for name in form.changed_data if name in lifecycle.EDITABLE}
            lifecycle.change(Actor.staff(request), obj, reason=given["reason"], **fields)
            return
        fields = {name: given[name] for name in (*lifecycle.EDITABLE, "environment")}
        key, text = lifecycle.issue(Actor.staff(request), given["partner"], **fields)
        obj.pk = key.pk
        obj.refresh_from_db()
        request.issued = text  # type: ignore[attr-defined]  # shown by response_add, kept nowhere

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        text = request.issued  # type: ignore[attr-defined]  # see save_model
        return self.show_once(request, "admin/keys/issued.html", title="Key issued", key=obj, text=text)

    def do_revoke(self, request: HttpRequest, key: ApiKey, reason: str) -> str:
        if not lifecycle.revoke(Actor.staff(request), key, reason=reason):
            return f"{key.prefix} was revoked before."
        self.log_change(request, key, f"Revoked: {reason}")
        return f"{key.prefix} is revoked."

    def do_rotate(self, request: HttpRequest, key: ApiKey, overlap: int, reason: str) -> HttpResponse:
        new, text = lifecycle.rotate(
            Actor.staff(request), key, overlap=dt.timedelta(seconds=overlap), reason=reason
        )
        self.log_change(request, key, f"Rotated: {reason}")
        return self.show_once(
            request, "admin/keys/issued.html", title="Key rotated", key=new, text=text, old=key
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        keys: QuerySet[ApiKey] = super().get_queryset(request)
        return keys.select_related("partner", "replaced_by")
