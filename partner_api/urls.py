"""Every address of the product. Each API route names its scope on its view."""

from django.contrib import admin
from django.urls import path

from deeds import files, views, views_v1
from keys import views as keys
from partner_api import metrics_page
from partner_api.http import documents, problems
from partner_api.ops import health

handler400 = problems.handler400
handler403 = problems.handler403
handler404 = problems.handler404
handler500 = problems.handler500

urlpatterns = [
    path("v1/deeds/<str:deed>", views_v1.V1Deed.as_view(), name="v1-deed"),
    path("v2/deeds", views.Deeds.as_view(), name="deeds"),
    path("v2/deeds/batch", views.DeedBatch.as_view(), name="deed-batch"),
    path("v2/deeds/validate", views.DeedValidation.as_view(), name="deed-validate"),
    path("v2/deeds/<uuid:deed_id>", views.DeedDetail.as_view(), name="deed"),
    path("v2/deeds/<uuid:deed_id>/pdf", views.DeedPdf.as_view(), name="deed-pdf"),
    path("v2/deeds/<uuid:deed_id>/cancel", views.DeedCancellation.as_view(), name="deed-cancel"),
    path("v2/deed-types", views.DeedTypes.as_view(), name="deed-types"),
    path("v2/deed-types/<str:deed_type>", views.DeedTypeDetail.as_view(), name="deed-type"),
    path("v2/keys", keys.Keys.as_view(), name="keys"),
    path("v2/keys/<uuid:key_id>", keys.KeyDetail.as_view(), name="key"),
    path("v2/keys/<uuid:key_id>/rotate", keys.KeyRotation.as_view(), name="key-rotate"),
    path("files/deeds/<uuid:deed_id>.pdf", files.PdfFile.as_view(), name="pdf-file"),
    path("schema/", documents.Schema.as_view(), name="schema"),
    path("docs/", documents.Swagger.as_view(url_name="schema"), name="docs"),
    path("docs/redoc/", documents.Redoc.as_view(url_name="schema"), name="redoc"),
    path("docs/errors", documents.Errors.as_view(), name="errors"),
    path("healthz", health.Health.as_view(), name="healthz"),
    path("readyz", health.Readiness.as_view(), name="readyz"),
    path("metrics", metrics_page.Metrics.as_view(), name="metrics"),
    path("admin/", admin.site.urls),
]
