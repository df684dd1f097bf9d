"""What was sent to partners' endpoints, for staff: how each attempt went, and send again."""

import json

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join

from keys import audit
from keys.audit import Actor
from partner_api.http.problems import Problem
from webhooks import outbox
from webhooks.admin.rows import PRE, ReadOnly
from webhooks.models import Delivery


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    list_display = ("event", "endpoint", "status", "attempts", "last_status", "last_error", "created_at")
    list_filter = ("status", "livemode", "partner")
    list_select_related = ("event", "endpoint")
    search_fields = ("=event_id",)
    search_help_text = "An event's id, whole."
    change_form_template = "admin/webhooks/delivery_change.html"
    fieldsets = (
        (None, {"fields": ("id", "partner", "livemode", "event", "endpoint", "status", "carries")}),
        ("Way", {"fields": ("attempts", "next_attempt_at", "settled_at", "log")}),
        ("Last answer", {"fields": ("last_status", "last_latency_ms", "last_error", "last_response")}),
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

    def get_urls(self) -> list[URLPattern]:
        resend = self.admin_site.admin_view(self.resend_view)
        return [path("<uuid:pk>/resend/", resend, name="webhooks_delivery_resend"), *super().get_urls()]

    def resend_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        delivery: Delivery = self.row(request, pk)
        if request.method == "POST":
            try:
                with transaction.atomic():
                    outbox.resend(delivery)
                    audit.record(
                        Actor.staff(request), "webhook_delivery.resent", delivery, partner=delivery.partner
                    )
            except Problem as problem:
                self.message_user(request, problem.detail, messages.ERROR)
            else:
                self.message_user(request, "It is sent once more.")
        return self.back(delivery)
