"""Deeds for staff: find one, read its way, open its PDF. What may be done stands in `admin_acts`."""

import json
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join

from deeds import downloads, storage
from deeds.admin_acts import DeedActs
from deeds.models import Deed, DeedAttempt, DeedDownload, StorageFinding
from keys import audit
from keys.admin.read_only import NotEditable, ReadOnly
from keys.audit import Actor


class EstimatingPaginator(Paginator):
    """Counts a filtered list, but takes the whole table's number from Postgres' statistics.

    Counting a large table reads all of it for a number that nobody needs exactly.
    """

    @cached_property
    def count(self) -> int:
        query = getattr(self.object_list, "query", None)
        if query is None or query.where:
            return super().count
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", ["external_deeds"]
            )
            estimate: int = cursor.fetchone()[0]
        return estimate if estimate > 10_000 else super().count  # noqa: PLR2004 - small ones are counted


@admin.register(Deed)
class DeedAdmin(DeedActs, NotEditable):
    list_display = ("order_id", "partner", "deed_type", "status", "livemode", "attempts", "created_at")
    list_filter = ("status", "deed_type", "livemode", "partner")
    list_select_related = ("partner",)
    list_per_page = 50
    search_fields = ("=order_id", "=id")
    search_help_text = "An order id or a deed id, whole."
    show_full_result_count = False
    paginator = EstimatingPaginator
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("id", "partner", "order_id", "deed_type", "livemode", "status", "pdf")}),
        ("Keeping", {"fields": ("hold", "given_to", "findings")}),
        ("Way", {"fields": ("way", "tried", "attempts", "crashes", "next_attempt_at")}),
        ("Failure", {"fields": ("failure_code", "failure_message", "failure_retryable", "failure_errors")}),
        ("Order", {"fields": ("as_given", "warnings", "reissue_of", "source", "request_id", "api_key")}),
    )

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """Whole ids only: each is an index lookup, at any number of deeds."""
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(search_term)), False
        except ValueError:
            return queryset.filter(order_id=search_term), False

    @admin.display(description="timeline")
    def way(self, deed: Deed) -> str:
        rows = ((entry["at"], entry["status"], entry.get("detail", "")) for entry in deed.timeline)
        return format_html_join("", "<div>{} <strong>{}</strong> {}</div>", rows)

    @admin.display(description="attempt log")
    def tried(self, deed: Deed) -> str:
        """What the Main API said each time, for as long as it is kept."""
        rows = (
            (note.number, note.ended_at.isoformat(timespec="seconds"), note.outcome, _told(note))
            for note in deed.attempt_log.order_by("id")[:100]
        )
        return format_html_join("", "<div>{}. {} <strong>{}</strong> {}</div>", rows)

    @admin.display(description="as given")
    def as_given(self, deed: Deed) -> str:
        text = json.dumps(deed.order, indent=2, ensure_ascii=False)
        return format_html('<pre style="white-space: pre-wrap; word-break: break-word">{}</pre>', text)

    @admin.display(description="PDF")
    def pdf(self, deed: Deed) -> str:
        if deed.status != Deed.Status.COMPLETED:
            return "none yet"
        if not deed.has_pdf:
            return f"deleted {deed.pdf_deleted_at:%Y-%m-%d %H:%M}, SHA-256 {deed.pdf_sha256}"
        url = reverse("admin:deeds_deed_pdf", args=[deed.pk])
        facts = f"{deed.pdf_pages} pages, {deed.pdf_bytes:,} bytes, SHA-256 {deed.pdf_sha256}"
        return format_html('<a class="underline" href="{}">Open</a> ({})', url, facts)

    @admin.display(description="legal hold")
    def hold(self, deed: Deed) -> str:
        return f"since {deed.held_at:%Y-%m-%d %H:%M}: {deed.hold_reason}" if deed.held_at else "none"

    @admin.display(description="downloads")
    def given_to(self, deed: Deed) -> str:
        rows = [
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.get_kind_display(), one.who, one.address or "", one.status)
            for one in deed.downloads.order_by("-id")[:50]
        ]
        return format_html_join("", "<div>{} <strong>{}</strong> {} {} {}</div>", rows) or "none"

    @admin.display(description="storage findings")
    def findings(self, deed: Deed) -> str:
        rows = [
            (
                f"{one.found_at:%Y-%m-%d %H:%M}",
                one.get_kind_display(),
                "resolved" if one.resolved_at else "open",
            )
            for one in deed.findings.order_by("-id")[:20]
        ]
        return format_html_join("", "<div>{} <strong>{}</strong> {}</div>", rows) or "none"

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site.admin_view
        return [
            path("<uuid:deed_pk>/pdf/", site(self.pdf_view), name="deeds_deed_pdf"),
            *super().get_urls(),
        ]

    def pdf_view(self, request: HttpRequest, deed_pk: str) -> HttpResponse:
        deed: Deed | None = self.get_object(request, str(deed_pk))
        if deed is None:
            raise Http404
        if not self.has_view_permission(request, deed):
            raise PermissionDenied
        if not deed.has_pdf:
            raise Http404
        downloads.record(request, deed, DeedDownload.Kind.STAFF, who=request.user.get_username(), status=302)
        # It is personal data: who looks at it is on record.
        audit.record(Actor.staff(request), "deed.pdf_opened", deed, partner=deed.partner)
        return HttpResponseRedirect(storage.link_to(deed, now=timezone.now()).url)


def _told(note: DeedAttempt) -> str:
    parts = [
        note.reason,
        f"status {note.http_status}" if note.http_status else "",
        f"{note.calls} calls" if note.calls > 1 else "",
        f"{note.generation_seconds:.2f} s" if note.generation_seconds is not None else "",
        f"request {note.main_api_request_id}" if note.main_api_request_id else "",
    ]
    return ", ".join(part for part in parts if part)


class _Log(ReadOnly):
    list_select_related = ("deed__partner",)
    list_per_page = 50
    show_full_result_count = False
    ordering = ("-id",)


@admin.register(DeedDownload)
class DeedDownloadAdmin(_Log):
    list_display = ("at", "deed", "kind", "who", "address", "status", "request_id")
    list_filter = ("kind", "partner")
    search_fields = ("=deed__id",)
    search_help_text = "A deed id, whole."

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(deed_id=UUID(search_term)), False
        except ValueError:
            return queryset.none(), False


@admin.register(StorageFinding)
class StorageFindingAdmin(_Log):
    list_display = ("deed", "kind", "found_at", "seen_at", "resolved_at", "detail")
    list_filter = ("kind", ("resolved_at", admin.EmptyFieldListFilter))
