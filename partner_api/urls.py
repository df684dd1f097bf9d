"""Every address of the product. Each API route names its scope on its view."""

from django.contrib import admin
from django.urls import path

from billing import stripe_views, usage_views
from billing import views as billing_views
from deeds import files, views, views_admin, views_v1
from keys import views as keys
from keys import views_admin as keys_admin
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
    path("v2/usage", usage_views.Usage.as_view(), name="usage"),
    path("v2/invoices", billing_views.Invoices.as_view(), name="invoices"),
    path("v2/invoices/<uuid:invoice_id>", billing_views.InvoiceDetail.as_view(), name="invoice"),
    path("v2/billing", billing_views.Billing.as_view(), name="billing"),
    path("files/deeds/<uuid:deed_id>.pdf", files.PdfFile.as_view(), name="pdf-file"),
    path("v2/billing/portal-session", stripe_views.BillingPortalSession.as_view(), name="portal-session"),
    path("v2/billing/setup-intent", stripe_views.BillingSetupIntent.as_view(), name="setup-intent"),
    path("webhooks/stripe", stripe_views.StripeWebhook.as_view(), name="stripe-webhook"),
    path("schema/", documents.Schema.as_view(), name="schema"),
    path("docs/", documents.Swagger.as_view(url_name="schema"), name="docs"),
    path("docs/redoc/", documents.Redoc.as_view(url_name="schema"), name="redoc"),
    path("docs/errors", documents.Errors.as_view(), name="errors"),
    path("healthz", health.Health.as_view(), name="healthz"),
    path("readyz", health.Readiness.as_view(), name="readyz"),
    path("admin/", admin.site.urls),
    path("admin-api/v1/partners", keys_admin.Partners.as_view(), name="admin-partners"),
    path("admin-api/v1/partners/<uuid:partner_id>", keys_admin.PartnerDetail.as_view(), name="admin-partner"),
    path("admin-api/v1/keys", keys_admin.Keys.as_view(), name="admin-keys"),
    path("admin-api/v1/keys/<uuid:key_pk>", keys_admin.KeyDetail.as_view(), name="admin-key"),
    path(
        "admin-api/v1/keys/<uuid:key_pk>/revoke", keys_admin.KeyRevocation.as_view(), name="admin-key-revoke"
    ),
    path("admin-api/v1/keys/<uuid:key_pk>/rotate", keys_admin.KeyRotation.as_view(), name="admin-key-rotate"),
    path("admin-api/v1/audit", keys_admin.Audit.as_view(), name="admin-audit"),
    path("admin-api/v1/deeds", views_admin.AllDeeds.as_view(), name="admin-deeds"),
    path("admin-api/v1/usage", usage_views.StaffUsage.as_view(), name="admin-usage"),
    path("admin-api/v1/bootstrap", keys_admin.Bootstrap.as_view(), name="admin-bootstrap"),
]
