"""/metrics: what Prometheus reads. To strangers it is a page that does not exist."""

from typing import ClassVar

from django.http import HttpRequest, HttpResponse
from django.views import View

from partner_api.http.client_address import address_of
from partner_api.http.problems import not_found, respond
from partner_api.ops import metrics, scraping


class Metrics(View):
    http_method_names = ["get", "head"]
    scopes: ClassVar = {"GET": "public"}

    def get(self, request: HttpRequest) -> HttpResponse:
        if not scraping.may_scrape(request.headers.get("Authorization", ""), address_of(request)):
            return respond(request, not_found())
        return HttpResponse(metrics.exposition(), content_type=scraping.CONTENT_TYPE)
