"""Cursor pages over UUIDv7 ids: newest first, stable while rows are added, no COUNT."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from partner_api.http.problems import FieldError, invalid

MAX_LIMIT = 100


class NewestFirst(CursorPagination):
    """`{"data": […], "next": url|null, "previous": url|null}`; `limit` is 1 to 100, default 25."""

    ordering = "-id"
    page_size = 25
    max_page_size = MAX_LIMIT
    page_size_query_param = "limit"

    def decode_cursor(self, request: Any) -> Any:
        """Raises Problem `validation_error` for a cursor that we did not make."""
        try:
            cursor = super().decode_cursor(request)
        except NotFound as error:
            raise _bad_cursor() from error
        if cursor is not None and cursor.position is not None and not self.is_position(str(cursor.position)):
            raise _bad_cursor()
        return cursor

    def is_position(self, position: str) -> bool:
        """Whether a row could stand here; of rows with UUIDs unless said otherwise."""
        try:
            uuid.UUID(position)
        except ValueError:
            return False
        return True

    def get_paginated_response(self, data: Sequence[Any]) -> Response:
        return Response({"data": data, "next": self.get_next_link(), "previous": self.get_previous_link()})


def page_of(
    found: QuerySet[Any],
    request: Request,
    shape: Callable[[Any], dict[str, Any]],
    pages: type[NewestFirst] = NewestFirst,
) -> Response:
    """The page that the request asks for, each row in its shape. Raises Problem `validation_error`."""
    paginator = pages()
    rows = paginator.paginate_queryset(found, request) or []
    return paginator.get_paginated_response([shape(row) for row in rows])


def _bad_cursor() -> Exception:
    message = "This is no cursor of ours; start from the first page and follow `next`."
    return invalid([FieldError("/cursor", "invalid_cursor", message, where="query")])
