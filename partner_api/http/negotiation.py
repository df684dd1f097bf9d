"""Which form an answer has: JSON, for whoever takes it; and files, whatever was asked for."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

# What nearly all clients send, none at all included.
_USUAL: Final = frozenset({"*/*", "application/json", "application/json, */*", "application/json, */*;q=0.5"})


class UsualAccept(DefaultContentNegotiation):
    """DRF's own, which reads the header's grammar anew each time, only where there is something to read."""

    def select_renderer(  # type: ignore[override]  # its stub knows no sequence
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        accept = request.META.get("HTTP_ACCEPT", "*/*")
        if len(renderers) == 1 and accept in _USUAL and "format" not in request.META.get("QUERY_STRING", ""):
            return renderers[0], str(renderers[0].media_type)
        found: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return found


class AnyAccept(BaseContentNegotiation):
    """Any Accept header will do: the answer is a file or a redirect, and its errors are problems."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
