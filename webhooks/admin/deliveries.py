"""What was sent to partners' endpoints, for staff: how each attempt went, and send again."""

import json

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from keys import audit
from keys.admin.acts import Act, ActingAdmin
from keys.audit import Actor
from partner_api.http.problems import Problem
from webhooks import outbox
from webhooks.admin.rows import PRE, ReadOnly
from webhooks.models import Delivery


@admin.register(Delivery)
class DeliveryAdmin(ActingAdmin, ReadOnly):
    list_display = ("event", "endpoint", "status", "attempts", "last_status", "last_error", "created_at")
    list_filter = ("status", "livemode", "partner")
    list_select_related = ("event", "endpoint")
    search_fields = ("=event_id",)
    search_help_text = "An event's id, whole."
    fieldsets = (
        (None, {"fields": ("id", "partner", "livemode", "event", "endpoint", "status", "carries")}),
        ("Way", {"fields": ("attempts", "next_attempt_at", "settled_at", "log")}),
        ("Last answer", {"fields": ("last_status", "last_latency_ms", "last_error", "last_response")}),
    )
    acts = (
        Act(
            "resend",
            "Send again",
            "{object.event} is sent to {object.endpoint} once more, with the id that it had, whatever became "
            "of it.",
            "send",
            permission="change",
            is_harmful=False,
            overtaken_by=("webhook_delivery.resent",),
        ),
    )

    @admin.display(description="data")
    def carries(self, delivery: Delivery) -> str:
        return format_html(PRE, json.dumps(delivery.event.data, indent=2))

    @admin.display(description="attempt log")
    def log(self, delivery: Delivery) -> str:
        rows = (
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.status_code or "", one.error or "received", one.latency_ms)
            for one in delivery.attempt_log.order_by("-id")[:100]
        )
        return format_html_join("", "<div>{} <strong>{}</strong> {} ({} ms)</div>", rows)

    def do_resend(self, request: HttpRequest, delivery: Delivery, reason: str) -> str:
        actor = Actor.staff(request)
        try:
            with transaction.atomic():
                outbox.resend(delivery)
                audit.record(
                    actor, "webhook_delivery.resent", delivery, partner=delivery.partner, reason=reason
                )
        except Problem as problem:
            raise ValidationError(problem.detail) from problem
        self.log_change(request, delivery, f"Sent again: {reason}")
        return "It is sent once more."
