"""Inbound sources for staff: made, their secret shown once and rotated."""

import datetime as dt
import secrets as random_secrets
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from unfold.admin import ModelAdmin

from keys import audit
from keys.audit import Actor
from webhooks.models import Source
from webhooks.systems import SYSTEMS


class SourceForm(forms.ModelForm):
    system = forms.ChoiceField(choices=[(name, name) for name in sorted(SYSTEMS)])

    class Meta:
        model = Source
        fields = ("system", "partner", "livemode", "strict", "enabled")


@admin.register(Source)
class SourceAdmin(ModelAdmin):
    form = SourceForm
    list_display = ("system", "partner", "livemode", "strict", "enabled", "created_at")
    list_filter = ("system", "enabled", "livemode")
    list_select_related = ("partner",)
    autocomplete_fields = ("partner",)
    search_fields = ("partner__name",)
    ordering = ("system", "-id")
    change_form_template = "admin/webhooks/source_change.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Source | None = None) -> Any:
        return ("id", "system", "partner", "livemode", "created_at") if obj else ()

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A new source's secret is shown in the answer itself, and kept nowhere in the clear."""
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        made: tuple[Source, str] | None = getattr(request, "made", None)
        return response if made is None else self._shown(request, *made)

    def save_model(self, request: HttpRequest, obj: Source, form: Any, change: bool) -> None:
        if not change:
            secret = random_secrets.token_hex(32)
            obj.give_secret(secret, now=timezone.now(), overlap=dt.timedelta(0))
            request.made = (obj, secret)  # type: ignore[attr-defined]  # shown by add_view
        super().save_model(request, obj, form, change)
        facts = {"system": obj.system, "strict": obj.strict, "enabled": obj.enabled}
        verb = "changed" if change else "created"
        audit.record(Actor.staff(request), f"webhook_source.{verb}", obj, partner=obj.partner, after=facts)

    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(self.rotate_view)
        return [path("<uuid:pk>/rotate/", rotate, name="webhooks_source_rotate"), *super().get_urls()]

    def rotate_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        """Asks, and shows a new secret on POST. The one before holds a while longer."""
        source: Source | None = self.get_object(request, str(pk))
        if source is None:
            raise Http404
        if not self.has_change_permission(request, source):
            raise PermissionDenied
        if request.method != "POST":
            context = {**self.admin_site.each_context(request), "source": source}
            hours = settings.WEBHOOKS_SECRET_OVERLAP_HOURS
            page = {**context, "title": f"New secret for {source}", "hours": f"{hours:g}"}
            return TemplateResponse(request, "admin/webhooks/rotate.html", page)
        secret = random_secrets.token_hex(32)
        overlap = dt.timedelta(hours=settings.WEBHOOKS_SECRET_OVERLAP_HOURS)
        with transaction.atomic():
            held = Source.objects.select_for_update(of=("self",)).select_related("partner").get(pk=source.pk)
            held.give_secret(secret, now=timezone.now(), overlap=overlap)
            held.save(update_fields=["secrets"])
            audit.record(Actor.staff(request), "webhook_source.secret_rotated", held, partner=held.partner)
        self.log_change(request, held, "Secret rotated")
        return self._shown(request, held, secret)

    def _shown(self, request: HttpRequest, source: Source, secret: str) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "source": source, "secret": secret}
        page = TemplateResponse(
            request, "admin/webhooks/secret.html", {**context, "title": "Source's secret"}
        )
        page["Cache-Control"] = "no-store"
        return page
