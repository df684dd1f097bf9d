"""Endpoints for staff: made, edited, their secret rotated, tested, replayed to, disabled, enabled, deleted.

By the same use cases as a partner's own calls, so that the same URLs and patterns are refused. An
endpoint's form is a page of its own: the name in a URL is looked up while it is checked, and Django's
forms in the admin are checked inside a transaction. A secret is shown in the answer itself, once.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from keys import audit
from keys.admin.acts import Act, ActingAdmin
from keys.admin.forms import CHANGED, NothingMore
from keys.audit import Actor
from partner_api.http.problems import Problem
from partner_api.http.reading import read_body
from webhooks import addresses, outbox, registering
from webhooks.admin.endpoint_forms import EndpointEditForm, EndpointForm, NewEndpointForm, ReplayForm
from webhooks.admin.rows import ReadOnly
from webhooks.models import Endpoint
from webhooks.reading import EndpointBody, EndpointChange

_DELETED: Final = "This endpoint is deleted."
# A partner's own switching is a change.
_SWITCHED: Final = ("webhook_endpoint.enabled", "webhook_endpoint.disabled", "webhook_endpoint.changed")


@admin.register(Endpoint)
class EndpointAdmin(ActingAdmin, ReadOnly):
    list_display = ("url", "partner", "livemode", "enabled", "disabled_reason", "failing_since", "created_at")
    list_filter = ("enabled", "disabled_reason", "livemode", "partner")
    list_select_related = ("partner",)
    search_fields = ("=id",)
    search_help_text = "An endpoint's id, whole."
    change_form_template = "admin/webhooks/endpoint_change.html"
    fieldsets = (
        (None, {"fields": ("id", "partner", "livemode", "url", "event_types", "description")}),
        (
            "State",
            {"fields": ("enabled", "disabled_reason", "disabled_at", "told_at", "deleted_at", "created_at")},
        ),
        ("Health", {"fields": ("failing_since", "last_failure_at", "last_success_at", "slow_until", "sent")}),
    )
    acts = (
        Act(
            "test",
            "Send a test",
            "A webhook.test message is sent to {object}, whatever types the endpoint wants.",
            "send",
            form=NothingMore,
            permission="change",
            is_harmful=False,
        ),
        Act(
            "rotate_secret",
            "Rotate secret",
            "{object} gets a new secret, shown on the next page, once. The one before holds for "
            f"{settings.WEBHOOKS_SECRET_OVERLAP_HOURS:g} hours more; until then each message carries a "
            "signature by both.",
            "autorenew",
            permission="change",
            is_harmful=False,
            overtaken_by=("webhook_endpoint.secret_rotated",),
        ),
        Act(
            "replay",
            "Replay",
            "All events since a time that {object} wants are sent once more, with the ids that they had; "
            "also those from while it was disabled.",
            "replay",
            form=ReplayForm,
            permission="change",
            is_harmful=False,
            overtaken_by=("webhook_endpoint.replayed",),
        ),
        Act(
            "disable",
            "Disable",
            "Nothing is sent to {object} any more; what waits is cancelled. The partner's other endpoints "
            "are told.",
            "block",
            permission="change",
            overtaken_by=_SWITCHED,
        ),
        Act(
            "enable",
            "Enable",
            "Events are sent to {object} again, from now on and with a clean record of failures. What was "
            "missed is sent by a replay.",
            "play_circle",
            permission="change",
            is_harmful=False,
            overtaken_by=_SWITCHED,
        ),
        Act(
            "remove",
            "Delete",
            "Nothing is sent to {object} any more, and the partner does not see it any more; what waits is "
            "cancelled, what was sent stays readable. This can't be undone.",
            "delete",
            permission="change",
            overtaken_by=("webhook_endpoint.changed",),
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("webhooks.add_endpoint"))

    def is_open(self, act: Act, obj: Any) -> bool:
        if obj.deleted_at is not None:
            return False
        match act.name:
            case "test" | "disable" | "replay":
                return bool(obj.enabled)
            case "enable":
                return not obj.enabled
        return True

    @admin.display(description="deliveries")
    def sent(self, endpoint: Endpoint) -> str:
        url = reverse("admin:webhooks_delivery_changelist")
        return format_html('<a class="underline" href="{}?endpoint__id__exact={}">List</a>', url, endpoint.pk)

    def get_urls(self) -> list[URLPattern]:
        edit = self.admin_site.admin_view(self.edit_view)
        return [path("<uuid:pk>/edit/", edit, name="webhooks_endpoint_edit"), *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewEndpointForm(request.POST or None)

        def make() -> HttpResponse:
            partner, livemode = form.cleaned_data["partner"], form.cleaned_data["livemode"]
            body = read_body(EndpointBody, form.body)
            endpoint, secret = registering.create(
                Actor.staff(request),
                partner,
                body,
                livemode=livemode,
                refusal=addresses.why_refused(body.url),
            )
            self.log_addition(request, endpoint, "Added")
            return self._shown(request, endpoint, secret, "Endpoint made")

        return self._answer(request, form, make, title="Add endpoint", verb="Add it")

    def edit_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        endpoint: Endpoint = self.row(request, pk)
        if endpoint.deleted_at is not None:
            self.message_user(request, _DELETED, messages.ERROR)
            return self.back(endpoint)
        initial = {name: getattr(endpoint, name) for name in ("url", "event_types", "description")}
        form = EndpointEditForm(request.POST or None, initial=initial)

        def change() -> HttpResponse:
            reason = form.cleaned_data["reason"]
            # A description can be changed while the name in the URL has no address.
            changed = {name: value for name, value in form.body.items() if name in form.changed_data}
            body = read_body(EndpointChange, changed)
            registering.change(Actor.staff(request), endpoint, body, reason=reason, as_read=True)
            self.log_change(request, endpoint, f"Changed: {reason}")
            self.message_user(request, "The endpoint is changed.")
            return self.back(endpoint)

        return self._answer(request, form, change, title=f"Edit {endpoint}", verb="Save", endpoint=endpoint)

    def do_test(self, request: HttpRequest, endpoint: Endpoint) -> str:
        try:
            with transaction.atomic():
                outbox.send_test(endpoint)
                audit.record(
                    Actor.staff(request), "webhook_endpoint.tested", endpoint, partner=endpoint.partner
                )
        except Problem as problem:
            raise ValidationError(problem.detail) from problem
        return "A test message is on its way; see the deliveries."

    def do_rotate_secret(self, request: HttpRequest, endpoint: Endpoint, reason: str) -> HttpResponse:
        _refuse_deleted(endpoint)
        secret = registering.rotate(Actor.staff(request), endpoint, reason=reason)
        self.log_change(request, endpoint, f"Secret rotated: {reason}")
        return self._shown(request, endpoint, secret, "Secret rotated")

    def do_replay(
        self, request: HttpRequest, endpoint: Endpoint, since: dt.datetime, reason: str, **narrowed: Any
    ) -> str:
        try:
            queued = registering.replay(
                Actor.staff(request), endpoint, since=since, reason=reason, **narrowed
            )
        except Problem as problem:
            raise ValidationError(problem.detail) from problem
        self.log_change(request, endpoint, f"Replayed since {since:%Y-%m-%d %H:%M}: {reason}")
        return f"Events that are sent once more: {queued:,}. See the deliveries."

    def do_remove(self, request: HttpRequest, endpoint: Endpoint, reason: str) -> str:
        if not registering.delete(Actor.staff(request), endpoint, by=Endpoint.Reason.STAFF, reason=reason):
            _refuse_deleted(self.row(request, str(endpoint.pk)))
        self.log_change(request, endpoint, f"Deleted: {reason}")
        return "The endpoint is deleted."

    def do_disable(self, request: HttpRequest, endpoint: Endpoint, reason: str) -> str:
        return self._set(request, endpoint, reason, enabled=False)

    def do_enable(self, request: HttpRequest, endpoint: Endpoint, reason: str) -> str:
        _refuse_deleted(endpoint)
        return self._set(request, endpoint, reason, enabled=True)

    def _set(self, request: HttpRequest, endpoint: Endpoint, reason: str, *, enabled: bool) -> str:
        done = "enabled" if enabled else "disabled"
        if not registering.set_enabled(Actor.staff(request), endpoint, enabled=enabled, reason=reason):
            return f"The endpoint was {done} before."
        self.log_change(request, endpoint, f"{done.capitalize()}: {reason}")
        return f"The endpoint is {done}."

    def _shown(self, request: HttpRequest, endpoint: Endpoint, secret: str, title: str) -> HttpResponse:
        template = "admin/webhooks/endpoint_secret.html"
        return self.show_once(request, template, title=title, endpoint=endpoint, secret=secret)

    def _answer(
        self, request: HttpRequest, form: EndpointForm, act: Callable[[], HttpResponse], **context: Any
    ) -> HttpResponse:
        """The act's on a POST that is right, else the form with what is wrong. Not in a transaction."""
        if request.method == "POST" and form.is_valid():
            try:
                return act()
            except Problem as problem:
                form.add_problem(problem)
            except registering.Overtaken:
                form.add_error(None, CHANGED)
        return self.page_of(request, "endpoint_form", form=form, opts=self.opts, **context)


def _refuse_deleted(endpoint: Endpoint) -> None:
    if endpoint.deleted_at is not None:
        raise ValidationError(_DELETED)
