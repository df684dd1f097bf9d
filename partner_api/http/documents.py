"""The OpenAPI document and its two readers, served from our own static files."""

from typing import ClassVar

from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView


class Schema(SpectacularAPIView):
    scopes: ClassVar = {"GET": "public"}
    problems: ClassVar[dict[str, tuple[str, ...]]] = {}


class Swagger(SpectacularSwaggerView):
    scopes: ClassVar = {"GET": "public"}


class Redoc(SpectacularRedocView):
    scopes: ClassVar = {"GET": "public"}
