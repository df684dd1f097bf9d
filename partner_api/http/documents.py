"""The OpenAPI document and its two readers, served from our own static files."""

from typing import ClassVar

from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView


class Schema(SpectacularAPIView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Swagger(SpectacularSwaggerView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}


class Redoc(SpectacularRedocView):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
