"""The product's addresses, and those that it is measured against."""

from django.urls import path

from bench import floor
from partner_api.urls import handler400, handler403, handler404, handler500
from partner_api.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [
    *product,
    path("bench/read/<uuid:deed_id>", floor.Read.as_view()),
    path("bench/insert", floor.Insert.as_view()),
    path("bench/packages/<uuid:deed_id>", floor.Packages.as_view()),
]
