"""Rows that staff look at and act on, and never edit."""

from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from keys.admin.read_only import NotEditable

PRE = '<pre style="white-space: pre-wrap; word-break: break-word">{}</pre>'


class ReadOnly(NotEditable):
    """Rows that are looked at and acted on, never edited, added or deleted."""

    list_per_page = 50
    show_full_result_count = False
    ordering = ("-id",)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """Whole ids only: each is an index look-up, at any number of rows."""
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(**{self.search_fields[0].removeprefix("="): UUID(search_term)}), False
        except ValueError:
            return queryset.none(), False

    def row(self, request: HttpRequest, pk: str) -> Any:
        """For those who may change it. Raises Http404 and PermissionDenied."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def back(self, row: Any) -> HttpResponse:
        name = f"admin:webhooks_{self.opts.model_name}_change"
        return HttpResponseRedirect(reverse(name, args=[row.pk]))

    def page_of(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        everything = {**self.admin_site.each_context(request), **context, "title": title}
        return TemplateResponse(request, f"admin/webhooks/{template}.html", everything)
