"""Partners and keys for staff: issue a key (its text is shown once, in the answer itself), and revoke it."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminTextInputWidget

from keys import lifecycle
from keys.audit import Actor
from keys.models import ApiKey, Partner
from keys.scopes import GRANTABLE


class RevokeForm(forms.Form):
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)


class ApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in GRANTABLE],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="A key without a scope can do nothing.",
    )

    class Meta:
        model = ApiKey
        fields = (
            "partner",
            "name",
            "environment",
            "scopes",
            "rate_limit_per_minute",
            "rate_limit_burst",
            "expires_at",
        )


@admin.register(Partner)
class PartnerAdmin(ModelAdmin):
    list_display = ("name", "status", "contact_email", "created_at")
    list_filter = ("status",)
    search_fields = ("name", "contact_email")
    readonly_fields = ("id", "created_at")
    ordering = ("name",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    form = ApiKeyForm
    list_display = ("prefix", "partner", "name", "environment", "state", "created_at")
    list_filter = ("environment", ("revoked_at", admin.EmptyFieldListFilter), "partner")
    list_select_related = ("partner",)
    search_fields = ("key_id", "name", "partner__name")
    autocomplete_fields = ("partner",)
    ordering = ("-created_at",)
    change_form_template = "admin/keys/apikey/change_form.html"

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        shown = ("prefix", "created_at", "revoked_at", "revoked_reason")
        return (*shown, "partner", "environment") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        return "revoked" if key.revoked_at else "active"

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Answers a successful issue with the page that shows the key, and keeps the text nowhere.

        A redirect would have to carry it in a session or a message, and both are stored.
        """
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        issued: tuple[ApiKey, str] | None = getattr(request, "issued", None)
        if issued is None:
            return response
        key, text = issued
        context = {**self.admin_site.each_context(request), "key": key, "text": text}
        shown = TemplateResponse(request, "admin/keys/apikey/issued.html", {**context, "title": "Key issued"})
        shown["Cache-Control"] = "no-store"
        return shown

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        key: ApiKey = super().save_form(request, form, change)
        if not change:
            request.issued = (key, key.give_secret())  # type: ignore[attr-defined]  # shown by add_view
        return key

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(self.revoke_view)
        name = "keys_apikey_revoke"
        return [path("<uuid:key_pk>/revoke/", revoke, name=name), *super().get_urls()]

    def revoke_view(self, request: HttpRequest, key_pk: str) -> HttpResponse:
        """Asks for a reason, and revokes on POST."""
        key = self.get_object(request, str(key_pk))
        if key is None or not self.has_change_permission(request, key):
            raise PermissionDenied
        form = RevokeForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            if lifecycle.revoke(Actor.staff(request), key, reason=reason):
                self.log_change(request, key, f"Revoked: {reason}")
            self.message_user(request, f"{key.prefix} is revoked.")
            return HttpResponseRedirect(reverse("admin:keys_apikey_change", args=[key.pk]))
        context = {**self.admin_site.each_context(request), "key": key, "form": form}
        return TemplateResponse(
            request, "admin/keys/apikey/revoke.html", {**context, "title": f"Revoke {key.prefix}"}
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        keys: QuerySet[ApiKey] = super().get_queryset(request)
        return keys.select_related("partner")
