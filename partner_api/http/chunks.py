"""Bodies that come in chunks (RFC 9112 section 7.1), of which nobody has said how long they are.

gunicorn takes the chunks apart and gives no length; Django and DRF take that for a request without a body.
So the body is read here, before they look, and what they look at is put right.
"""

import io
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin
from gunicorn.http.errors import ParseException

from partner_api.http.problems import Problem, respond, unread

_LENGTH: Final = "CONTENT_LENGTH"


def gather(request: HttpRequest, limit: int) -> None:
    """Gives a request that came in chunks its body and length, as if they had been announced.

    Of a body of more than `limit` bytes one byte more is read: whoever looks at it then refuses it, as it
    would any other. Raises Problem `bad_request` for chunks that can't be read or did not all
    come, `request_timeout` for those that came too slowly.
    """
    meta = request.META
    if "HTTP_TRANSFER_ENCODING" not in meta or _LENGTH in meta or not meta.get("wsgi.input_terminated"):
        return
    try:
        body = meta["wsgi.input"].read(limit + 1)
    except OSError as error:
        raise unread(error) from error
    except ParseException as error:
        raise Problem("bad_request", "The body's chunks can't be read.") from error
    meta[_LENGTH] = str(len(body))
    request._stream = io.BytesIO(body)  # noqa: SLF001 - Django has no other way


class ChunkedFormsMiddleware(MiddlewareMixin):
    """For views that are not the API's: that has its bodies read after authentication, not before."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if hasattr(view, "cls"):
            return None
        try:
            gather(request, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        except Problem as problem:
            return respond(request, problem)
        return None
