"""Inbound sources for staff: made, disabled and enabled, their secret shown once and rotated."""

from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldBooleanSwitchWidget

from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import ModelEditForm, ReasonForm
from keys.audit import Actor
from webhooks import admitting
from webhooks.models import Source
from webhooks.systems import SYSTEMS

_SWITCHED: Final = ("webhook_source.enabled", "webhook_source.disabled")


class SourceForm(forms.ModelForm):
    system = forms.ChoiceField(choices=[(name, name) for name in sorted(SYSTEMS)])

    class Meta:
        model = Source
        fields = ("system", "partner", "livemode", "strict", "enabled")


class SourceEditForm(ModelEditForm):
    class Meta:
        model = Source
        fields = ("strict",)


class RotateForm(ReasonForm):
    is_leaked = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="The secrets before end at once",
        help_text="For one that leaked: what it signs is refused from now on, the sender's own included.",
    )


@admin.register(Source)
class SourceAdmin(ActingAdmin):
    form = SourceForm
    edit_form = SourceEditForm
    list_display = ("system", "partner", "livemode", "strict", "enabled", "created_at")
    list_filter = ("system", "enabled", "livemode")
    list_select_related = ("partner",)
    autocomplete_fields = ("partner",)
    search_fields = ("partner__name",)
    ordering = ("system", "-id")
    acts = (
        Act(
            "rotate",
            "New secret",
            "{object} gets a new secret, shown on the next page, once. The one it has now holds for "
            f"{settings.WEBHOOKS_SECRET_OVERLAP_HOURS:g} hours more, so that the sender can change over "
            "without losing an order; unless it has leaked and is to end at once.",
            "autorenew",
            form=RotateForm,
            permission="change",
            is_harmful=False,
            overtaken_by=("webhook_source.secret_rotated",),
        ),
        Act(
            "disable",
            "Disable",
            "Requests of {object} are refused from now on, and its sender has to send them again later.",
            "block",
            permission="change",
            overtaken_by=_SWITCHED,
        ),
        Act(
            "enable",
            "Enable",
            "Requests of {object} are accepted from now on.",
            "play_circle",
            permission="change",
            is_harmful=False,
            overtaken_by=_SWITCHED,
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Source | None = None) -> Any:
        return ("id", "system", "partner", "livemode", "enabled", "created_at") if obj else ()

    def is_open(self, act: Act, obj: Any) -> bool:
        return bool({"disable": obj.enabled, "enable": not obj.enabled}.get(act.name, True))

    def save_model(self, request: HttpRequest, obj: Source, form: Any, change: bool) -> None:
        actor = Actor.staff(request)
        if change:
            given = form.cleaned_data
            admitting.change(actor, obj, strict=given["strict"], reason=given["reason"])
            return
        request.made = admitting.make(actor, obj)  # type: ignore[attr-defined]  # shown by response_add

    def response_add(self, request: HttpRequest, obj: Source, post_url_continue: Any = None) -> HttpResponse:
        """A new source's secret is shown in the answer itself, and kept nowhere in the clear."""
        return self._shown(request, obj, request.made)  # type: ignore[attr-defined]  # see save_model

    def do_rotate(self, request: HttpRequest, source: Source, is_leaked: bool, reason: str) -> HttpResponse:
        secret = admitting.rotate(Actor.staff(request), source, is_leaked=is_leaked, reason=reason)
        self.log_change(request, source, f"Secret rotated: {reason}")
        return self._shown(request, source, secret)

    def do_disable(self, request: HttpRequest, source: Source, reason: str) -> str:
        return self._set(request, source, reason, enabled=False)

    def do_enable(self, request: HttpRequest, source: Source, reason: str) -> str:
        return self._set(request, source, reason, enabled=True)

    def _set(self, request: HttpRequest, source: Source, reason: str, *, enabled: bool) -> str:
        done = "enabled" if enabled else "disabled"
        if not admitting.set_enabled(Actor.staff(request), source, enabled=enabled, reason=reason):
            return f"The source was {done} before."
        self.log_change(request, source, f"{done.capitalize()}: {reason}")
        return f"The source is {done}."

    def _shown(self, request: HttpRequest, source: Source, secret: str) -> HttpResponse:
        template, title = "admin/webhooks/secret.html", "Source's secret"
        return self.show_once(request, template, title=title, source=source, secret=secret)
