"""The OpenAPI document and its two readers, served from our own static files."""

from typing import Any, ClassVar

from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.request import Request
from rest_framework.response import Response


class Schema(SpectacularAPIView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Swagger(SpectacularSwaggerView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Redoc(SpectacularRedocView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)
        # Redoc's own code would fetch its logo from its maker's servers.
        response["Content-Security-Policy"] = "img-src 'self' data:; font-src 'self'; connect-src 'self'"
        return response
