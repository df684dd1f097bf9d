"""What came in, for staff: first of all what needs a person, to correct, replay and compare."""

import json
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget

from keys import audit
from keys.admin.acts import Act, confirmation
from keys.admin.forms import ReasonForm, SeenForm
from keys.audit import Actor
from webhooks import correcting, shadow
from webhooks.admin.rows import PRE, ReadOnly
from webhooks.models import InboundEvent

_SHORT: Final = 24


class NeedsAttention(admin.SimpleListFilter):
    """The list opens with what needs a person."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "all"), *((value, str(label)) for value, label in InboundEvent.Status.choices)]

    def choices(self, changelist: Any) -> Any:
        # Without Django's own "All", which would stand for needing attention here.
        for value, label in self.lookup_choices:
            selected = (self.value() or InboundEvent.Status.NEEDS_ATTENTION) == value
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": selected, "query_string": query, "display": label}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value() or InboundEvent.Status.NEEDS_ATTENTION
        return queryset if wanted == "all" else queryset.filter(status=wanted)


class CorrectionForm(SeenForm):
    body = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 24, "class": "w-full", "spellcheck": "false"})
    )
    reason = forms.CharField(max_length=200, help_text="Kept in the audit trail.")

    def clean_body(self) -> str:
        """It would become a name on a deed."""
        body: str = self.cleaned_data["body"]
        if "\N{REPLACEMENT CHARACTER}" in body:
            message = "Each \N{REPLACEMENT CHARACTER} is where a character was lost: write the right one."
            raise ValidationError(message)
        return body


def _set_aside() -> list[tuple[str, str]]:
    """By source and reason, as far as there is a body to be replayed."""
    status = InboundEvent.Status.NEEDS_ATTENTION
    found = InboundEvent.objects.filter(status=status, body__isnull=False).order_by("source", "reason_code")
    facts = found.values_list("source", "source__system", "source__partner__name", "reason_code")
    return [
        (f"{source} {code}", f"{system} of {partner}: {code} ({count:,})")
        for source, system, partner, code, count in facts.annotate(count=Count("pk"))
    ]


class ManyForm(ReasonForm):
    which = forms.ChoiceField(choices=_set_aside, widget=UnfoldAdminSelectWidget)
    field_order = ("which", "reason")


_REPLAY_MANY: Final = Act(
    "replay_many",
    "Replay many",
    "Events of a source that were set aside for one reason are processed once more, with the bodies that "
    f"they have: the oldest {correcting.MANY}.",
    "replay",
    form=ManyForm,
    is_harmful=False,
)


@admin.register(InboundEvent)
class InboundEventAdmin(ReadOnly):
    list_display = ("received_at", "source", "status", "result_status", "why", "event_id")
    list_filter = (NeedsAttention, "source__system", "source__partner")
    list_select_related = ("source__partner",)
    search_fields = ("=id",)
    search_help_text = "An inbound event's id, whole."
    change_form_template = "admin/webhooks/inbound_change.html"
    actions_list = ("replay_many",)
    fieldsets = (
        (None, {"fields": ("id", "source", "identity", "status", "received_at", "deed", "request_id")}),
        ("Why it waits", {"fields": ("waits_for", "not_before")}),
        ("Why it needs attention", {"fields": ("result_status", "reason_code", "reason", "places")}),
        ("As it came", {"fields": ("headers", "as_it_came")}),
        ("As corrected", {"fields": ("correction",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboundEvent]:
        events: QuerySet[InboundEvent] = super().get_queryset(request)
        # A list shows no body, and each would have to be decrypted.
        return events.defer("body", "corrected_body")

    @admin.display(description="reason")
    def why(self, event: InboundEvent) -> str:
        return f"{event.reason_code}: {event.reason[:120]}" if event.reason_code else event.waits_for

    @admin.display(description="identity")
    def event_id(self, event: InboundEvent) -> str:
        return event.identity if len(event.identity) <= _SHORT else f"{event.identity[:_SHORT]}…"

    @admin.display(description="errors")
    def places(self, event: InboundEvent) -> str:
        rows = ((one["pointer"], one["message"]) for one in event.errors)
        return format_html_join("", "<div><strong>{}</strong> {}</div>", rows) or "none"

    @admin.display(description="body")
    def as_it_came(self, event: InboundEvent) -> str:
        if event.body is None:
            return "Removed after its retention."
        return format_html(PRE, bytes(event.body).decode(errors="replace"))

    @admin.display(description="body")
    def correction(self, event: InboundEvent) -> str:
        return format_html(PRE, event.corrected_body) if event.corrected_body else "none"

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("<uuid:pk>/correct/", site(self.correct_view), name="webhooks_inbound_correct"),
            path("<uuid:pk>/shadow/", site(self.shadow_view), name="webhooks_inbound_shadow"),
            *super().get_urls(),
        ]

    def correct_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        """Shows the body to be corrected, and replays it on POST, as it is or as corrected."""
        event = self._with_body(request, pk)
        text, encoding = correcting.readable(event.text)
        form = CorrectionForm(request.POST or None, initial={"body": text}, shown=text)
        if request.method == "POST" and form.is_valid():
            body, reason = form.cleaned_data["body"], form.cleaned_data["reason"]
            if correcting.replay(Actor.staff(request), event, body=body, reason=reason):
                self.log_change(request, event, f"Replayed: {reason}")
                self.message_user(request, "It is replayed; what comes of it shows here in a moment.")
            else:
                self.message_user(request, "Only an event that needs attention is replayed.", messages.ERROR)
            return self.back(event)
        title, read_as = f"Correct and replay {event}", "" if encoding == "utf-8" else encoding
        return self.page_of(request, "correct", title, event=event, form=form, read_as=read_as)

    @action(description="Replay many", permissions=["change"])
    def replay_many(self, request: HttpRequest) -> HttpResponse:
        back = reverse("admin:webhooks_inboundevent_changelist")
        if not _set_aside():
            message = "No event that still has its body needs attention: there is nothing to replay."
            self.message_user(request, message, messages.WARNING)
            return HttpResponseRedirect(back)
        form = ManyForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return confirmation(self, request, _REPLAY_MANY, form, about=None, back=back)
        source, _, code = form.cleaned_data["which"].partition(" ")
        reason = form.cleaned_data["reason"]
        count = correcting.replay_all(Actor.staff(request), UUID(source), code=code, reason=reason)
        self.message_user(request, f"Events that are replayed: {count:,}.")
        return HttpResponseRedirect(back)

    def shadow_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        """What it would become today. Nothing is done, but whoever looked has seen people's names."""
        event = self._with_body(request, pk)
        audit.record(
            Actor.staff(request), "inbound_event.shadow_replayed", event, partner=event.source.partner
        )
        found = shadow.run(event)
        order = json.dumps(found.order, indent=2, ensure_ascii=False) if found.order else ""
        difference = "\n".join(found.difference)
        return self.page_of(
            request,
            "shadow",
            f"Shadow replay of {event}",
            event=event,
            found=found,
            order=order,
            difference=difference,
        )

    def _with_body(self, request: HttpRequest, pk: str) -> InboundEvent:
        """Raises Http404 once there is nothing left to read."""
        event: InboundEvent = self.row(request, pk)
        if event.body is None:
            raise Http404
        return event
