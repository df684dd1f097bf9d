"""The OpenAPI document and its two readers, served from our own static files."""

import threading
from typing import Any, ClassVar, Final

from django.http import HttpResponse
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.renderers import JSONRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from partner_api.http.codes import CODES
from partner_api.http.negotiation import AnyAccept
from partner_api.http.problems import CONTENT_TYPE
from partner_api.http.security_headers import REDOC

# The document as it is sent, by its form.
_made: Final[dict[str, bytes]] = {}
_making: Final = threading.Lock()


class _Public(APIView):
    """For everybody, and counted by address. What its renderer makes is no form for a problem."""

    schema = None
    http_method_names = ["get", "head"]
    authentication_classes = ()
    scopes: ClassVar = {"GET": "public"}

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]  # its stub says Response
        refused = super().handle_exception(exc)
        answer = HttpResponse(JSONRenderer().render(refused.data), status=refused.status_code)
        for name, value in {**refused.headers, "Content-Type": CONTENT_TYPE}.items():
            answer.headers[name] = value
        return answer


class Schema(_Public, SpectacularAPIView):
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        """Made once a process: it is the same for all, and a third of a second's work for whoever asks."""
        renderer: Any = request.accepted_renderer
        with _making:
            if renderer.media_type not in _made:
                document = self.generator_class().get_schema(request=None, public=True)
                _made[renderer.media_type] = renderer.render(document, renderer.media_type, {})
        charset = f"; charset={renderer.charset}" if renderer.charset else ""
        answer = HttpResponse(_made[renderer.media_type], content_type=f"{renderer.media_type}{charset}")
        answer.headers["Content-Disposition"] = f'inline; filename="Partner API.{renderer.format}"'
        return answer


class Swagger(_Public, SpectacularSwaggerSplitView):
    pass


class Errors(_Public):
    """What the `type` of a problem links to."""

    renderer_classes = [TemplateHTMLRenderer]
    content_negotiation_class = AnyAccept

    def get(self, request: Request) -> Response:
        # Each second part of an advice stood between backticks.
        codes = [(name, code, code.advice.split("`")) for name, code in CODES.items()]
        return Response({"codes": codes}, template_name="errors.html")


class Redoc(_Public, SpectacularRedocView):
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)
        response["Content-Security-Policy"] = REDOC
        return response
