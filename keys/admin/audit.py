"""The audit trail for staff: read, find and export; nobody can change it here, nor anywhere."""

import csv
import json
from collections.abc import Iterator
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import display

from keys import audit, audit_chain
from keys.admin.read_only import ReadOnly
from keys.audit import Actor
from keys.models import AuditEntry
from partner_api.http.spreadsheets import harmless

COLUMNS: Final = (
    "id",
    "at",
    "actor_kind",
    "actor",
    "action",
    "target_kind",
    "target_id",
    "partner_id",
    "before",
    "after",
    "reason",
    "address",
    "request_id",
    "hash",
)
KINDS: Final = {
    "staff": "info",
    "key": "success",
    "token": "warning",
    "command": "default",
    "system": "default",
}


class ActionFilter(admin.SimpleListFilter):
    """Asks the index for one action after the other: a DISTINCT would read the whole table."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(
                "WITH RECURSIVE actions AS ("
                " (SELECT action FROM audit_entries ORDER BY action LIMIT 1)"
                " UNION ALL SELECT (SELECT action FROM audit_entries WHERE action > actions.action"
                " ORDER BY action LIMIT 1) FROM actions WHERE actions.action IS NOT NULL)"
                " SELECT action FROM actions WHERE action IS NOT NULL"
            )
            return [(action, action) for (action,) in cursor.fetchall()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ("at", "kind", "actor", "action", "target", "partner", "reason", "address")
    list_display_links = ("at",)
    list_filter = ("actor_kind", ActionFilter, "partner", ("at", RangeDateTimeFilter))
    list_filter_submit = True
    list_select_related = ("partner",)
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("^actor", "=target_id", "=request_id")
    search_help_text = "How an actor's name begins; an object's id or a request's id, whole."
    ordering = ("-id",)
    change_list_template = "admin/keys/audit_list.html"
    fieldsets = (
        (None, {"fields": ("at", "actor_kind", "actor", "action", "reason")}),
        ("On what", {"fields": ("target_kind", "target_id", "partner", "shown_before", "shown_after")}),
        ("From where", {"fields": ("address", "request_id")}),
        ("Chain", {"fields": ("id", "previous_hash", "hash")}),
    )

    def has_export_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("keys.export_auditentry"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [name for _, options in self.fieldsets for name in options["fields"]]

    @display(description="who", label=KINDS)
    def kind(self, entry: AuditEntry) -> str:
        return entry.actor_kind

    @admin.display(description="on what")
    def target(self, entry: AuditEntry) -> str:
        return f"{entry.target_kind.partition('.')[2]} {entry.target_id}"

    @admin.display(description="before")
    def shown_before(self, entry: AuditEntry) -> str:
        return _shown(entry.before)

    @admin.display(description="after")
    def shown_after(self, entry: AuditEntry) -> str:
        return _shown(entry.after)

    def get_urls(self) -> list[URLPattern]:
        export = self.admin_site.admin_view(self.export_view)
        return [path("export/", export, name="keys_auditentry_export"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        more = {"may_export": self.has_export_permission(request), "query": request.GET.urlencode()}
        page: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **more})
        return page

    def export_view(self, request: HttpRequest) -> Any:
        """The entries that the filters leave, as CSV. The export is an entry itself."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        chosen = self.get_changelist_instance(request).get_queryset(request)
        user: Any = request.user
        entry = audit.record(
            Actor.staff(request), "audit.exported", user, after={"filters": request.GET.urlencode()}
        )
        chosen = chosen.filter(pk__lt=entry.pk).select_related(None)
        answer = StreamingHttpResponse(csv_of(chosen), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="audit-{entry.at:%Y%m%d-%H%M%S}.csv"'
        answer["Cache-Control"] = "no-store"
        return answer


class _Line:
    """What csv.writer writes to: hands the line back."""

    def write(self, text: str) -> str:
        return text


def csv_of(entries: Any) -> Iterator[str]:
    """Line by line, oldest first, with a few thousand entries in memory at most."""
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    for entry in audit_chain.in_order(entries):
        yield writer.writerow([_cell(getattr(entry, name)) for name in COLUMNS])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return harmless(json.dumps(value, sort_keys=True, ensure_ascii=False))
    text = "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return harmless(text)


def _shown(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False)
    return format_html('<pre style="white-space: pre-wrap; word-break: break-word">{}</pre>', text)
