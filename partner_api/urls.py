"""Every address of the product. Each API route names its scope or its role on its view."""

from django.contrib import admin
from django.urls import path

from billing import stripe_views, usage_views
from billing import views as billing
from deeds import files, views_admin, views_v1
from deeds import views as deeds
from keys import nowhere
from keys import views as keys
from keys import views_admin as keys_admin
from partner_api import metrics_page
from partner_api.http import documents, problems
from partner_api.ops import health
from webhooks import views as webhooks
from webhooks.views_inbound import InboundWebhook

admin.autodiscover()

handler400 = problems.handler400
handler403 = problems.handler403
handler404 = nowhere.handler404
handler500 = problems.handler500

_FIRST_VERSION = [
    path("v1/deeds/<str:deed>", views_v1.V1Deed.as_view(), name="v1-deed"),
    path("v1/webhooks/<str:system>", InboundWebhook.as_view(), name="inbound-webhook"),
]

_DEED = "v2/deeds/<uuid:deed_id>"
_KEY = "v2/keys/<uuid:key_id>"
_ENDPOINT = "v2/webhook-endpoints/<uuid:endpoint_id>"
_DELIVERY = "v2/webhook-deliveries/<uuid:delivery_id>"
_PRODUCT = [
    path("v2/deeds", deeds.Deeds.as_view(), name="deeds"),
    path("v2/deeds/batch", deeds.DeedBatch.as_view(), name="deed-batch"),
    path("v2/deeds/validate", deeds.DeedValidation.as_view(), name="deed-validate"),
    path(_DEED, deeds.DeedDetail.as_view(), name="deed"),
    path(f"{_DEED}/pdf", deeds.DeedPdf.as_view(), name="deed-pdf"),
    path(f"{_DEED}/cancel", deeds.DeedCancellation.as_view(), name="deed-cancel"),
    path("v2/deed-types", deeds.DeedTypes.as_view(), name="deed-types"),
    path("v2/deed-types/<str:deed_type>", deeds.DeedTypeDetail.as_view(), name="deed-type"),
    path("v2/usage", usage_views.Usage.as_view(), name="usage"),
    path("v2/invoices", billing.Invoices.as_view(), name="invoices"),
    path("v2/invoices/<uuid:invoice_id>", billing.InvoiceDetail.as_view(), name="invoice"),
    path("v2/billing", billing.Billing.as_view(), name="billing"),
    path("v2/billing/portal-session", stripe_views.BillingPortalSession.as_view(), name="portal-session"),
    path("v2/billing/setup-intent", stripe_views.BillingSetupIntent.as_view(), name="setup-intent"),
    path("v2/keys", keys.Keys.as_view(), name="keys"),
    path(_KEY, keys.KeyDetail.as_view(), name="key"),
    path(f"{_KEY}/rotate", keys.KeyRotation.as_view(), name="key-rotate"),
    path("v2/webhook-endpoints", webhooks.Endpoints.as_view(), name="endpoints"),
    path(_ENDPOINT, webhooks.EndpointDetail.as_view(), name="endpoint"),
    path(f"{_ENDPOINT}/test", webhooks.EndpointTest.as_view(), name="endpoint-test"),
    path(f"{_ENDPOINT}/rotate-secret", webhooks.EndpointSecret.as_view(), name="endpoint-secret"),
    path(f"{_ENDPOINT}/replay", webhooks.EndpointReplay.as_view(), name="endpoint-replay"),
    path("v2/events", webhooks.Events.as_view(), name="events"),
    path("v2/events/<uuid:event_id>", webhooks.EventDetail.as_view(), name="event"),
    path("v2/webhook-deliveries", webhooks.Deliveries.as_view(), name="deliveries"),
    path(_DELIVERY, webhooks.DeliveryDetail.as_view(), name="delivery"),
    path(f"{_DELIVERY}/resend", webhooks.DeliveryResend.as_view(), name="delivery-resend"),
]

_ADMIN_KEY = "admin-api/v1/keys/<uuid:key_pk>"
_BACK_OFFICE = [
    path("admin-api/v1/partners", keys_admin.Partners.as_view(), name="admin-partners"),
    path("admin-api/v1/partners/<uuid:partner_id>", keys_admin.PartnerDetail.as_view(), name="admin-partner"),
    path("admin-api/v1/keys", keys_admin.Keys.as_view(), name="admin-keys"),
    path(_ADMIN_KEY, keys_admin.KeyDetail.as_view(), name="admin-key"),
    path(f"{_ADMIN_KEY}/revoke", keys_admin.KeyRevocation.as_view(), name="admin-key-revoke"),
    path(f"{_ADMIN_KEY}/rotate", keys_admin.KeyRotation.as_view(), name="admin-key-rotate"),
    path("admin-api/v1/usage", usage_views.StaffUsage.as_view(), name="admin-usage"),
    path("admin-api/v1/deeds", views_admin.AllDeeds.as_view(), name="admin-deeds"),
    path("admin-api/v1/audit", keys_admin.Audit.as_view(), name="admin-audit"),
    path("admin-api/v1/bootstrap", keys_admin.Bootstrap.as_view(), name="admin-bootstrap"),
]

urlpatterns = [
    *_FIRST_VERSION,
    *_PRODUCT,
    *_BACK_OFFICE,
    path("webhooks/stripe", stripe_views.StripeWebhook.as_view(), name="stripe-webhook"),
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
