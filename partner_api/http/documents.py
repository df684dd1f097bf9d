"""The OpenAPI document and its two readers, served from our own static files."""

from typing import Any, ClassVar

from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from partner_api.http.codes import CODES
from partner_api.http.security_headers import REDOC


class Schema(SpectacularAPIView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Swagger(SpectacularSwaggerSplitView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Errors(TemplateView):
    """What the `type` of a problem links to."""

    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
    template_name = "errors.html"
    # Each second part of an advice stood between backticks.
    extra_context = {
        "codes": [(name, code, code.advice.split("`")) for name, code in CODES.items()],
    }


class Redoc(SpectacularRedocView):
    schema = None
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)
        response["Content-Security-Policy"] = REDOC
        return response
