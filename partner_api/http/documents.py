"""The OpenAPI document and its two readers, served from our own static files."""

from typing import ClassVar

from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView

from partner_api.http.codes import CODES


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
    extra_context = {"codes": CODES}


class Redoc(SpectacularRedocView):
    schema = None
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}
