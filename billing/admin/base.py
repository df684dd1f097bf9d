"""What finance's pages share: rows that nobody edits, amounts as people read them, downloads."""

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import MediaDefiningClass
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from billing import answers, exports
from keys.admin.read_only import ReadOnly


def amount(minor_units: Decimal | int, currency: str) -> str:
    """Such as "1,234.50 USD"."""
    return f"{Decimal(answers.money(minor_units, currency)):,} {currency}"


class ReadOnlyAdmin(ReadOnly):
    """A list and a page of each row. What changes them is on pages of its own, and audited."""

    def may(self, request: HttpRequest, permission: str) -> None:
        """Raises PermissionDenied without a permission of this app."""
        if not request.user.has_perm(f"billing.{permission}"):
            raise PermissionDenied

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, f"admin/billing/{template}", {**shared, **context})


class AbstractAdmin(ABCMeta, MediaDefiningClass):
    """A page that lacks an abstract method can't be registered."""


class ExportingAdmin(ReadOnlyAdmin, metaclass=AbstractAdmin):
    """Its list can be downloaded as it is filtered."""

    export_permission: str
    export_header: Sequence[str]
    list_before_template = "admin/billing/above_list.html"

    @abstractmethod
    def export_rows(self, queryset: QuerySet[Any]) -> Iterator[Sequence[Any]]:
        """One for each row of the filtered list, in the order of `export_header`."""

    @abstractmethod
    def totals(self, queryset: QuerySet[Any]) -> list[tuple[str, str]]:
        """What the filtered list adds up to: labels and amounts."""

    def get_urls(self) -> list[URLPattern]:
        name = f"billing_{self.opts.model_name}_export"
        export = self.admin_site.admin_view(self.export_view)
        return [path("export.<str:form>", export, name=name), *super().get_urls()]

    def export_view(self, request: HttpRequest, form: str) -> HttpResponseBase:
        self.may(request, self.export_permission)
        if form not in {"csv", "xlsx"}:
            raise Http404
        queryset = self.get_changelist_instance(request).get_queryset(request)
        return exports.respond(
            str(self.opts.verbose_name_plural).replace(" ", "-"),
            form,
            self.export_header,
            self.export_rows(queryset),
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        answer: HttpResponse = super().changelist_view(request, extra_context)
        shown = getattr(answer, "context_data", None)
        if shown and "cl" in shown:
            query = urlencode(request.GET, doseq=True)
            shown["totals"] = self.totals(shown["cl"].queryset)
            shown["may_export"] = request.user.has_perm(f"billing.{self.export_permission}")
            shown["export_query"] = f"?{query}" if query else ""
        return answer
