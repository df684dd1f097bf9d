"""Every setting of the product, read once from the environment.

A value that decides about safety has no default here that would be unsafe in production: it must be
given, or the process stops and names it. `partner_api.ops.checks` refuses combinations that are
well-formed but insecure. docs/configuration.md explains each setting; a test compares the two.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.schedules import crontab
from django.templatetags.static import static
from kombu import Queue

from partner_api.environment import NOT_PRODUCTION, Env, read_files
from partner_api.ops.logging import FORMATS, LEVELS, logging_config

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
# The real environment wins over what is read here.
ENV_FILE = read_files(BASE_DIR)
VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var"))).absolute()

# --- what kind of process this is -------------------------------------------------------------
ENVIRONMENT = env.str("ENVIRONMENT", default="production")
IS_PRODUCTION = ENVIRONMENT not in NOT_PRODUCTION
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
if POD_IP := env.str("POD_IP", default=""):
    # Prometheus calls each pod by its address.
    ALLOWED_HOSTS = [*ALLOWED_HOSTS, POD_IP]
PUBLIC_BASE_URL = env.str("PUBLIC_BASE_URL").rstrip("/")
VERSION = "0.1.0"

ROOT_URLCONF = "partner_api.urls"
WSGI_APPLICATION = "partner_api.wsgi.application"
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "keys.apps.StaffAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_otp",
    "axes",
    "partner_api.ops",
    "partner_api.http",
    "keys",
    "billing",
    "deeds",
    "webhooks",
]

MIDDLEWARE = [
    "partner_api.ops.request_metrics.RequestMetricsMiddleware",
    "partner_api.http.request_id.RequestIdMiddleware",
    "partner_api.ops.access_log.AccessLogMiddleware",
    "billing.request_log.RequestLogMiddleware",
    "partner_api.http.security_headers.SecurityHeadersMiddleware",
    "keys.middleware.KeyHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Before the first that reads a form.
    "partner_api.http.chunks.ChunkedFormsMiddleware",
    "partner_api.http.routing.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "partner_api.http.routing.CsrfViewMiddleware",
    "partner_api.http.routing.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "partner_api.http.routing.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # After those that add headers, so that a refusal has the headers of any unknown address.
    "keys.staff.gate.AllowedNetworks",
    "keys.staff.gate.SessionLimits",
    "axes.middleware.AxesMiddleware",
]

# Django looks for its own CSRF middleware by name; ours is that one, on the pages that have forms.
SILENCED_SYSTEM_CHECKS = ["security.W003"]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Encrypts what must be read back, such as signing secrets. The first encrypts, all decrypt.
FIELD_ENCRYPTION_KEYS = env.list("FIELD_ENCRYPTION_KEYS")
# How many proxies of ours stand in front, each of which adds to X-Forwarded-For.
TRUSTED_PROXY_HOPS = env.int("TRUSTED_PROXY_HOPS", default=0)

# --- data -------------------------------------------------------------------------------------
DATABASES: dict[str, dict[str, Any]] = {"default": env.db("DATABASE_URL")}
DATABASES["default"].setdefault("OPTIONS", {}).update(
    {
        "pool": {
            "min_size": 1,
            "max_size": env.int("DATABASE_POOL_SIZE", default=16),
            "timeout": env.float("DATABASE_POOL_TIMEOUT_SECONDS", default=10.0),
        },
        # How often a statement must come before it is prepared: at once, or never.
        "prepare_threshold": 0 if env.bool("DATABASE_PREPARED_STATEMENTS", default=True) else None,
        # A query that runs away must not hold a thread, nor a lock, for ever.
        "options": (
            f"-c statement_timeout={env.int('DATABASE_STATEMENT_TIMEOUT_MS', default=15_000)}"
            f" -c lock_timeout={env.int('DATABASE_LOCK_TIMEOUT_MS', default=5_000)}"
            # A host that vanished with a transaction open must not hold its locks for longer.
            " -c idle_in_transaction_session_timeout="
            f"{env.int('DATABASE_IDLE_TRANSACTION_TIMEOUT_MS', default=60_000)}"
        ),
    }
)

REDIS_URL = env.str("REDIS_URL")
REDIS_TIMEOUT_SECONDS = env.float("REDIS_TIMEOUT_SECONDS", default=0.5)
LIMITER_REDIS_TIMEOUT_SECONDS = env.float("LIMITER_REDIS_TIMEOUT_SECONDS", default=0.25)


def _redis_cache(timeout_seconds: float) -> dict[str, Any]:
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "partner_api",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": timeout_seconds, "SOCKET_TIMEOUT": timeout_seconds},
    }


CACHES = {
    "default": _redis_cache(REDIS_TIMEOUT_SECONDS),
    # Every request asks it, so none may wait for it for long.
    "limiter": _redis_cache(LIMITER_REDIS_TIMEOUT_SECONDS),
}

# --- where PDFs are kept ----------------------------------------------------------------------
STORAGE_BACKEND = env.str("STORAGE_BACKEND", default="local")
DEED_STORAGE_DIR = Path(env.str("DEED_STORAGE_DIR", default=str(VAR_DIR / "storage")))
S3_BUCKET = env.str("S3_BUCKET", default="")
S3_REGION = env.str("S3_REGION", default="")
S3_ENDPOINT_URL = env.str("S3_ENDPOINT_URL", default="")
S3_PREFIX = env.str("S3_PREFIX", default="").strip("/")
S3_SSE = env.str("S3_SSE", default="AES256")
S3_KMS_KEY_ID = env.str("S3_KMS_KEY_ID", default="")
S3_CONNECT_TIMEOUT_SECONDS = env.float("S3_CONNECT_TIMEOUT_SECONDS", default=2.0)
S3_READ_TIMEOUT_SECONDS = env.float("S3_READ_TIMEOUT_SECONDS", default=10.0)
S3_ATTEMPTS = env.int("S3_ATTEMPTS", default=3)
CLOUDFRONT_DOMAIN = env.str("CLOUDFRONT_DOMAIN", default="")
CLOUDFRONT_KEY_ID = env.str("CLOUDFRONT_KEY_ID", default="")
CLOUDFRONT_PRIVATE_KEY = env.str("CLOUDFRONT_PRIVATE_KEY", default="", multiline=True)
# How long an address of the storage's own works at most, once one of our links led there.
STORAGE_LINK_SECONDS = env.int("STORAGE_LINK_SECONDS", default=24 * 3600)
# 0 keeps them for good.
PDF_RETENTION_DAYS = env.int("PDF_RETENTION_DAYS", default=0)
RETENTION_SECONDS = env.float("RETENTION_SECONDS", default=3600.0)
STORAGE_CHECK_SECONDS = env.float("STORAGE_CHECK_SECONDS", default=900.0)
STORAGE_CHECK_SAMPLE = env.int("STORAGE_CHECK_SAMPLE", default=50)
STORAGE_ORPHAN_HOURS = env.int("STORAGE_ORPHAN_HOURS", default=24)
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "deeds": {
        "BACKEND": "deeds.stores.s3.S3Store",
        "OPTIONS": {
            "bucket_name": S3_BUCKET,
            "region_name": S3_REGION or None,
            "endpoint_url": S3_ENDPOINT_URL or None,
            "location": S3_PREFIX,
            "sse": S3_SSE,
            "kms_key_id": S3_KMS_KEY_ID,
            "custom_domain": CLOUDFRONT_DOMAIN or None,
            "cloudfront_key_id": CLOUDFRONT_KEY_ID or None,
            "cloudfront_key": CLOUDFRONT_PRIVATE_KEY or None,
            "connect_timeout": S3_CONNECT_TIMEOUT_SECONDS,
            "read_timeout": S3_READ_TIMEOUT_SECONDS,
            "attempts": S3_ATTEMPTS,
        },
    }
    if STORAGE_BACKEND == "s3"
    else {
        "BACKEND": "deeds.stores.local.LocalStore",
        "OPTIONS": {"location": str(DEED_STORAGE_DIR)},
    },
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if IS_PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage",
    },
}
STATIC_URL = "/static/"
# Only an image has collected files; elsewhere they are served from where the packages keep them.
STATIC_ROOT = env.str("STATIC_ROOT", default=str(BASE_DIR / "staticfiles")) if IS_PRODUCTION else None
WHITENOISE_USE_FINDERS = not IS_PRODUCTION
WHITENOISE_AUTOREFRESH = DEBUG

# --- the way of an order ----------------------------------------------------------------------
MAIN_API_BASE_URL = env.str("MAIN_API_BASE_URL", default="").rstrip("/")
MAIN_API_INTERNAL_TOKEN = env.str("MAIN_API_INTERNAL_TOKEN", default="")
SANDBOX_BASE_URL = env.str("SANDBOX_BASE_URL", default="http://127.0.0.1:8100").rstrip("/")
SANDBOX_TOKEN = env.str("SANDBOX_TOKEN", default="")
SANDBOX_RENDER_SECONDS = env.float("SANDBOX_RENDER_SECONDS", default=0.0)
MAIN_API_CONNECT_TIMEOUT_SECONDS = env.float("MAIN_API_CONNECT_TIMEOUT_SECONDS", default=3.0)
MAIN_API_READ_TIMEOUT_SECONDS = env.float("MAIN_API_READ_TIMEOUT_SECONDS", default=30.0)
MAIN_API_ATTEMPTS = env.int("MAIN_API_ATTEMPTS", default=3)
MAIN_API_RETRY_SECONDS = env.float("MAIN_API_RETRY_SECONDS", default=0.5)
MAIN_API_RETRY_AFTER_MAX_SECONDS = env.float("MAIN_API_RETRY_AFTER_MAX_SECONDS", default=10.0)
MAIN_API_CA_BUNDLE = env.str("MAIN_API_CA_BUNDLE", default="")
PDF_MAX_BYTES = env.int("PDF_MAX_BYTES", default=25 * 1024 * 1024)
PDF_MAX_PAGES = env.int("PDF_MAX_PAGES", default=500)
# How long a worker may work at one deed. It is beneath the broker's visibility timeout.
DEED_SOFT_LIMIT_SECONDS = 300
DEED_LEASE_SECONDS = env.int("DEED_LEASE_SECONDS", default=60)
DEED_RETRY_SCHEDULE_SECONDS = env.ints(
    "DEED_RETRY_SCHEDULE_SECONDS", default=[30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800]
)
DEED_HINT_AGAIN_SECONDS = env.int("DEED_HINT_AGAIN_SECONDS", default=120)
DEED_MAX_CRASHES = env.int("DEED_MAX_CRASHES", default=5)
PDF_LINK_SECONDS = env.int("PDF_LINK_SECONDS", default=24 * 3600)
V1_WAIT_SECONDS = env.float("V1_WAIT_SECONDS", default=25.0)
PREFER_WAIT_MAX_SECONDS = 30.0
WAITING_REQUESTS_PER_PROCESS = env.int("WAITING_REQUESTS_PER_PROCESS", default=12)
ORDER_MAX_BYTES = env.int("ORDER_MAX_BYTES", default=1024 * 1024)
BATCH_MAX_BYTES = env.int("BATCH_MAX_BYTES", default=8 * 1024 * 1024)

IDEMPOTENCY_KEY_SECONDS = env.int("IDEMPOTENCY_KEY_SECONDS", default=24 * 3600)
DEED_MAX_QUEUED_PER_PARTNER = env.int("DEED_MAX_QUEUED_PER_PARTNER", default=20_000)
# How many test deeds all workers together make at once: by default one worker of one host stays for others.
DEED_TEST_AT_ONCE = env.int("DEED_TEST_AT_ONCE", default=max(1, env.int("WORKER_CONCURRENCY", default=4) - 1))
DEED_ATTEMPTS_KEPT_DAYS = env.int("DEED_ATTEMPTS_KEPT_DAYS", default=90)
CIRCUIT_FAILURES = env.int("CIRCUIT_FAILURES", default=5)
CIRCUIT_WINDOW_SECONDS = env.float("CIRCUIT_WINDOW_SECONDS", default=60.0)
CIRCUIT_REST_SECONDS = env.float("CIRCUIT_REST_SECONDS", default=10.0)

# --- billing ----------------------------------------------------------------------------------
BILLING_CURRENCY = env.str("BILLING_CURRENCY", default="USD")
RESERVATION_STALE_SECONDS = env.int("RESERVATION_STALE_SECONDS", default=900)
DRAFT_INVOICES_SECONDS = env.float("DRAFT_INVOICES_SECONDS", default=900.0)
REQUEST_QUOTA_SECONDS = env.float("REQUEST_QUOTA_SECONDS", default=5.0)

# --- webhooks ---------------------------------------------------------------------------------
WEBHOOKS_ALLOW_HTTP = env.bool("WEBHOOKS_ALLOW_HTTP", default=False)
WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = env.list("WEBHOOKS_ALLOW_PRIVATE_ADDRESSES", default=[])
WEBHOOKS_PORTS = env.ints("WEBHOOKS_PORTS", default=[443, 8443])
WEBHOOKS_CA_BUNDLE = env.str("WEBHOOKS_CA_BUNDLE", default="")
WEBHOOKS_TIMEOUT_SECONDS = env.float("WEBHOOKS_TIMEOUT_SECONDS", default=15.0)
# The first is the pause before the first attempt; there are as many attempts as entries.
WEBHOOKS_SCHEDULE_SECONDS = env.floats(
    "WEBHOOKS_SCHEDULE_SECONDS", default=[0, 5, 300, 1800, 7200, 18000, 36000, 36000]
)
WEBHOOKS_ENDPOINT_CONCURRENCY = env.int("WEBHOOKS_ENDPOINT_CONCURRENCY", default=4)
WEBHOOKS_CONCURRENCY = env.int("WEBHOOKS_CONCURRENCY", default=32)
WEBHOOKS_MAX_FLIGHTS = env.int("WEBHOOKS_MAX_FLIGHTS", default=128)
WEBHOOKS_PUMPS = env.int("WEBHOOKS_PUMPS", default=2)
WEBHOOKS_PUMP_SECONDS = env.float("WEBHOOKS_PUMP_SECONDS", default=60.0)
WEBHOOKS_PROCESS_SECONDS = env.float("WEBHOOKS_PROCESS_SECONDS", default=5.0)
WEBHOOKS_LEASE_SECONDS = env.int("WEBHOOKS_LEASE_SECONDS", default=90)
WEBHOOKS_SLOW_SECONDS = env.float("WEBHOOKS_SLOW_SECONDS", default=600.0)
WEBHOOKS_DISABLE_AFTER_HOURS = env.float("WEBHOOKS_DISABLE_AFTER_HOURS", default=120.0)
WEBHOOKS_SECRET_OVERLAP_HOURS = env.float("WEBHOOKS_SECRET_OVERLAP_HOURS", default=24.0)
WEBHOOKS_SWEEP_SECONDS = env.float("WEBHOOKS_SWEEP_SECONDS", default=5.0)
WEBHOOKS_INBOUND_MAX_BYTES = env.int("WEBHOOKS_INBOUND_MAX_BYTES", default=1024 * 1024)
# How long an inbound order waits for quota, budget or payment.
WEBHOOKS_INBOUND_PATIENCE_HOURS = env.float("WEBHOOKS_INBOUND_PATIENCE_HOURS", default=72.0)
WEBHOOKS_SOURCES_TRIED = env.int("WEBHOOKS_SOURCES_TRIED", default=50)
# 0 keeps them for good.
WEBHOOKS_KEPT_DAYS = env.int("WEBHOOKS_KEPT_DAYS", default=90)
WEBHOOKS_INBOUND_BODIES_KEPT_DAYS = env.int("WEBHOOKS_INBOUND_BODIES_KEPT_DAYS", default=90)
WEBHOOKS_FORGET_HOUR = env.hour("WEBHOOKS_FORGET_HOUR", default=4)

# --- keys -------------------------------------------------------------------------------------
DEFAULT_RATE_LIMIT_PER_MINUTE = env.int("DEFAULT_RATE_LIMIT_PER_MINUTE", default=120)
DEFAULT_RATE_LIMIT_BURST = env.int("DEFAULT_RATE_LIMIT_BURST", default=30)
KEY_CACHE_SECONDS = env.float("KEY_CACHE_SECONDS", default=10.0)
KEY_TAG_SECONDS = env.int("KEY_TAG_SECONDS", default=24 * 3600)
KEY_ROTATION_OVERLAP_SECONDS = env.int("KEY_ROTATION_OVERLAP_SECONDS", default=24 * 3600)
KEY_WARNING_DAYS = env.int("KEY_WARNING_DAYS", default=14)
KEY_LAST_USED_SECONDS = env.int("KEY_LAST_USED_SECONDS", default=60)
FAILED_AUTH_PER_MINUTE = env.int("FAILED_AUTH_PER_MINUTE", default=30)
FAILED_AUTH_BURST = env.int("FAILED_AUTH_BURST", default=60)
PUBLIC_RATE_LIMIT_PER_MINUTE = env.int("PUBLIC_RATE_LIMIT_PER_MINUTE", default=1200)
PUBLIC_RATE_LIMIT_BURST = env.int("PUBLIC_RATE_LIMIT_BURST", default=300)
# A source whose signature is right is counted by itself, whatever else comes from its address.
WEBHOOKS_SOURCE_PER_MINUTE = env.int("WEBHOOKS_SOURCE_PER_MINUTE", default=PUBLIC_RATE_LIMIT_PER_MINUTE)
WEBHOOKS_SOURCE_BURST = env.int("WEBHOOKS_SOURCE_BURST", default=PUBLIC_RATE_LIMIT_BURST)
LIMITER_REDIS_RETRY_SECONDS = env.float("LIMITER_REDIS_RETRY_SECONDS", default=1.0)
LIMITER_MEMORY_ENTRIES = env.int("LIMITER_MEMORY_ENTRIES", default=40_000)

# --- usage ------------------------------------------------------------------------------------
USAGE_SPOOL_DIR = Path(env.str("USAGE_SPOOL_DIR", default=str(VAR_DIR / "spool")))
USAGE_SPOOL_MAX_BYTES = env.int("USAGE_SPOOL_MAX_BYTES", default=1024**3)
USAGE_DRAIN_SECONDS = env.float("USAGE_DRAIN_SECONDS", default=2.0)
USAGE_ADOPT_SECONDS = env.float("USAGE_ADOPT_SECONDS", default=30.0)
USAGE_RETENTION_MONTHS = env.int("USAGE_RETENTION_MONTHS", default=25)
USAGE_COST_UNITS: dict[str, int] = env.json("USAGE_COST_UNITS", default={})

# --- Stripe: without a secret key nothing is sent, and everything else works --------------------
STRIPE_SECRET_KEY = env.str("STRIPE_SECRET_KEY", default="")
# More than one while a secret is rotated; each is tried.
STRIPE_WEBHOOK_SECRETS = env.list("STRIPE_WEBHOOK_SECRETS", default=[])
STRIPE_WEBHOOK_TOLERANCE_SECONDS = env.int("STRIPE_WEBHOOK_TOLERANCE_SECONDS", default=300)
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="https://api.stripe.com").rstrip("/")
STRIPE_PORTAL_RETURN_URL = env.str("STRIPE_PORTAL_RETURN_URL", default=PUBLIC_BASE_URL)
STRIPE_TIMEOUT_SECONDS = env.float("STRIPE_TIMEOUT_SECONDS", default=20.0)
STRIPE_MAX_NETWORK_RETRIES = env.int("STRIPE_MAX_NETWORK_RETRIES", default=1)
STRIPE_METER_EVENTS_PER_SECOND = env.int("STRIPE_METER_EVENTS_PER_SECOND", default=800)
STRIPE_CALLS_PER_SECOND = env.int("STRIPE_CALLS_PER_SECOND", default=60)
STRIPE_SYNC_SECONDS = env.float("STRIPE_SYNC_SECONDS", default=30.0)
STRIPE_SYNC_THREADS = env.int("STRIPE_SYNC_THREADS", default=8)
STRIPE_SYNC_RUN_SECONDS = env.float("STRIPE_SYNC_RUN_SECONDS", default=120.0)
STRIPE_LANE_LEASE_SECONDS = env.int("STRIPE_LANE_LEASE_SECONDS", default=180)
STRIPE_BACKOFF_MAX_SECONDS = env.int("STRIPE_BACKOFF_MAX_SECONDS", default=3600)
STRIPE_UNSYNCED_ALERT_DAYS = env.int("STRIPE_UNSYNCED_ALERT_DAYS", default=3)
STRIPE_EVENT_RETENTION_DAYS = env.int("STRIPE_EVENT_RETENTION_DAYS", default=90)
RECONCILE_HOUR = env.hour("RECONCILE_HOUR", default=3)

# --- work in the background -------------------------------------------------------------------
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default=REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
BROKER_TIMEOUT_SECONDS = env.float("BROKER_TIMEOUT_SECONDS", default=1.0)
# After how long one request asks a broker again that was away; the others do without until then.
BROKER_RETRY_SECONDS = env.float("BROKER_RETRY_SECONDS", default=1.0)
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 900,
    # How long one request waits to hint at its order while the broker is away; the sweeper hints later.
    "socket_timeout": BROKER_TIMEOUT_SECONDS,
    "socket_connect_timeout": BROKER_TIMEOUT_SECONDS,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.05,
    "interval_max": 0.05,
    "global_keyprefix": "celery:",
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_DEFAULT_QUEUE = "deeds"
# Batches wait in a line of their own, and so does what keeps house: behind a thousand deeds the sweeper
# would expire before it runs. A worker without `-Q` serves all of them in turn.
DEED_BULK_QUEUE = "deeds-bulk"
UPKEEP_QUEUE = "upkeep"
WEBHOOK_QUEUE = "webhooks"
CELERY_TASK_QUEUES = [
    Queue(name, routing_key=name)
    for name in (CELERY_TASK_DEFAULT_QUEUE, DEED_BULK_QUEUE, UPKEEP_QUEUE, WEBHOOK_QUEUE)
]
_UPKEEP = {"queue": UPKEEP_QUEUE, "routing_key": UPKEEP_QUEUE}
CELERY_TASK_ROUTES = {
    "webhooks.tasks.*": {"queue": WEBHOOK_QUEUE, "routing_key": WEBHOOK_QUEUE},
    "billing.tasks.*": _UPKEEP,
    "keys.tasks.*": _UPKEEP,
    "partner_api.*": _UPKEEP,
    # The others of deeds.tasks make deeds.
    **{
        f"deeds.tasks.{name}": _UPKEEP
        for name in ("sweep", "purge_attempts", "check_storage", "delete_old_pdfs")
    },
}
# At a stop, tasks are given this long to end; what is left is interrupted, and gives its deed back.
WORKER_STOP_SECONDS = env.float("WORKER_STOP_SECONDS", default=20.0)
# The row is the truth and the sweeper finds it: a broker that is away must not hold a request.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", default=4)
CELERY_WORKER_MAX_TASKS_PER_CHILD = env.int("WORKER_MAX_TASKS_PER_CHILD", default=2000)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=10.0)

# --- HTTP -------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["keys.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [
        "keys.permissions.HasScope",
        "billing.requests_left.WithinRequestQuota",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "partner_api.http.negotiation.UsualAccept",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["partner_api.http.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "partner_api.http.schema.ProblemAwareSchema",
    "EXCEPTION_HANDLER": "partner_api.http.problems.handle",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Partner API",
    "VERSION": VERSION,
    "DESCRIPTION": (BASE_DIR / "partner_api" / "http" / "api_description.md").read_text(),
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["keys.permissions.HasScope"],
    "SERVE_AUTHENTICATION": [],
    "SERVERS": [{"url": PUBLIC_BASE_URL}],
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["partner_api.http.schema.tidy", "webhooks.documents.add_webhooks"],
}

IS_HTTPS = PUBLIC_BASE_URL.startswith("https://")
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=IS_PRODUCTION)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000 if IS_PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=IS_PRODUCTION)
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=IS_PRODUCTION)
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PRODUCTION or IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = env.int("SESSION_COOKIE_AGE", default=8 * 3600)
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[PUBLIC_BASE_URL])
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# The strict parser has its own bound for API bodies; this one is for the forms of the admin.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

# --- staff ------------------------------------------------------------------------------------
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
UNFOLD = {
    "SITE_TITLE": "Partner API",
    "SITE_HEADER": "Partner API",
    "SITE_SUBHEADER": "Staff",
    "SITE_SYMBOL": "description",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SITE_URL": "/docs/",
    "STYLES": [lambda _: static("partner_api/staff.css")],
    "ACCOUNT": {
        "navigation": [
            {"title": "Recovery codes", "link": "/admin/recovery-codes/"},
        ],
    },
}
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "keys.staff.backend.PasswordAndCode"]
ADMIN_ALLOWED_CIDRS = env.list("ADMIN_ALLOWED_CIDRS", default=[])
STAFF_IDLE_SECONDS = env.int("STAFF_IDLE_SECONDS", default=1800)
# Logins from one address under whatever names; made-up names would evade the lockout of each.
STAFF_LOGINS_PER_MINUTE = env.int("STAFF_LOGINS_PER_MINUTE", default=10)
STAFF_LOGINS_BURST = env.int("STAFF_LOGINS_BURST", default=30)
# Failed logins by name and address are counted in Postgres, so that a lockout outlives Redis.
AXES_HANDLER = "axes.handlers.database.AxesDatabaseHandler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = env.int("STAFF_LOGIN_ATTEMPTS", default=5)
AXES_COOLOFF_TIME = timedelta(seconds=env.int("STAFF_LOCKOUT_SECONDS", default=900))
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_USERNAME_CALLABLE = "keys.staff.events.counted_name"
AXES_CLIENT_IP_CALLABLE = "partner_api.http.client_address.counted_as"
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "token", "csrfmiddlewaretoken"]
AXES_LOCKOUT_CALLABLE = "keys.staff.site.locked_out"
# The audit trail has logins and failures; a second list beside it could only differ.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- the back office's API --------------------------------------------------------------------
ADMIN_JWT_SECRET = env.str("ADMIN_JWT_SECRET", default="")
ADMIN_JWKS_URL = env.str("ADMIN_JWKS_URL", default="")
ADMIN_JWT_AUDIENCE = env.str("ADMIN_JWT_AUDIENCE", default="partner-api-admin")
ADMIN_JWT_ISSUER = env.str("ADMIN_JWT_ISSUER", default="main-api")
ADMIN_JWT_ROLE_CLAIM = env.str("ADMIN_JWT_ROLE_CLAIM", default="role")
ADMIN_JWT_LEEWAY_SECONDS = env.int("ADMIN_JWT_LEEWAY_SECONDS", default=30)
ADMIN_JWKS_CACHE_SECONDS = env.float("ADMIN_JWKS_CACHE_SECONDS", default=300.0)
ADMIN_JWKS_STALE_SECONDS = env.float("ADMIN_JWKS_STALE_SECONDS", default=24 * 3600.0)
ADMIN_JWKS_COOLDOWN_SECONDS = env.float("ADMIN_JWKS_COOLDOWN_SECONDS", default=30.0)
ADMIN_API_ALLOWED_CIDRS = env.list("ADMIN_API_ALLOWED_CIDRS", default=[])
SETUP_SECRET = env.str("SETUP_SECRET", default="")

# --- watching it ------------------------------------------------------------------------------
# Read by prometheus_client itself, from the environment.
PROMETHEUS_MULTIPROC_DIR = env.str("PROMETHEUS_MULTIPROC_DIR", default="")
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
METRICS_ALLOWED_CIDRS = env.networks("METRICS_ALLOWED_CIDRS", default=[])
METRICS_CACHE_SECONDS = env.float("METRICS_CACHE_SECONDS", default=5.0)
WORKER_METRICS_PORT = env.int("WORKER_METRICS_PORT", default=0)
HEARTBEAT_DIR = Path(env.str("HEARTBEAT_DIR", default=str(VAR_DIR / "run" / "heartbeats")))
STAFF_WEBHOOK_URL = env.str("STAFF_WEBHOOK_URL", default="")
WATCH_SECONDS = env.float("WATCH_SECONDS", default=60.0)
WATCH_RATE_LIMITED_PER_KEY = env.int("WATCH_RATE_LIMITED_PER_KEY", default=100)
WATCH_WAITING_DEEDS = env.int("WATCH_WAITING_DEEDS", default=3)
SENTRY_DSN = env.str("SENTRY_DSN", default="")
SENTRY_SAMPLE_RATE = env.float("SENTRY_SAMPLE_RATE", default=1.0)
SENTRY_TRACES_SAMPLE_RATE = env.float("SENTRY_TRACES_SAMPLE_RATE", default=0.0)
TRACING_ENDPOINT = env.str("TRACING_ENDPOINT", default="")
TRACING_SAMPLE_RATE = env.float("TRACING_SAMPLE_RATE", default=0.1)
CELERY_BEAT_SCHEDULER = "partner_api.ops.heartbeat:BeatingScheduler"

# --- what beat asks for, and when ---------------------------------------------------------------


def _every(seconds: float, task: str) -> dict[str, Any]:
    """By the clock of beat's own start: for what is due again before the next deployment."""
    return {"task": task, "schedule": timedelta(seconds=seconds), "options": {"expires": seconds}}


def _at(task: str, *, minute: int, hour: str = "*", expires: int = 3600) -> dict[str, Any]:
    """By the wall's clock, which a deployment does not set back; an interval of a day would never end."""
    return {
        "task": task,
        "schedule": crontab(minute=str(minute), hour=hour),
        "options": {"expires": expires},
    }


CELERY_BEAT_SCHEDULE = {
    "sweep-deeds": _every(SWEEP_SECONDS, "deeds.tasks.sweep"),
    "check-storage": _every(STORAGE_CHECK_SECONDS, "deeds.tasks.check_storage"),
    "delete-old-pdfs": _every(RETENTION_SECONDS, "deeds.tasks.delete_old_pdfs"),
    "purge-deed-attempts": _at("deeds.tasks.purge_attempts", minute=10, hour="*/6"),
    "drain-usage": _every(USAGE_ADOPT_SECONDS, "billing.tasks.drain_usage"),
    "keep-usage-partitions": _at("billing.tasks.keep_partitions", minute=20, hour="*/6"),
    "draft-invoices": _every(DRAFT_INVOICES_SECONDS, "billing.tasks.draft_invoices"),
    "sync-ledger": _every(STRIPE_SYNC_SECONDS, "billing.tasks.sync"),
    "process-stripe-events": _every(STRIPE_SYNC_SECONDS, "billing.tasks.process_stripe_events"),
    "release-stripe-invoices": _every(STRIPE_SYNC_SECONDS, "billing.tasks.release_invoices"),
    "provision-due-contracts": _at("billing.tasks.provision_due", minute=5),
    "reconcile-nightly": _at(
        "billing.tasks.reconcile", minute=15, hour=str(RECONCILE_HOUR), expires=6 * 3600
    ),
    "warn-of-ending-keys": _at("keys.tasks.warn_of_ending_keys", minute=25),
    "forget-ended-sessions": _at("keys.tasks.forget_ended_sessions", minute=40, hour="2", expires=12 * 3600),
    "purge-kept-answers": _at("partner_api.http.tasks.purge_kept_answers", minute=50),
    "sweep-webhooks": _every(WEBHOOKS_SWEEP_SECONDS, "webhooks.tasks.sweep"),
    "forget-old-webhooks": _at(
        "webhooks.tasks.forget", minute=30, hour=str(WEBHOOKS_FORGET_HOUR), expires=6 * 3600
    ),
    "watch": _every(WATCH_SECONDS, "partner_api.ops.tasks.watch"),
}

# --- e-mail -----------------------------------------------------------------------------------
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Partner API <no-reply@localhost>")
STAFF_EMAILS = env.list("STAFF_EMAILS", default=[])
EMAIL_TIMEOUT = 10

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = ["partner_api.formats"]

LOG_LEVEL = env.choice("LOG_LEVEL", LEVELS, default="INFO")
LOG_FORMAT = env.choice("LOG_FORMAT", FORMATS, default="json")
LOGGING = logging_config(level=LOG_LEVEL, log_format=LOG_FORMAT)

# A name in .env that nothing above asked for is a slip, which would leave a setting at its default.
if ENV_FILE is not None:
    env.refuse_misspelt(ENV_FILE)
# In the environment it may be meant for another program: it is only told of, once there is a log.
MISSPELT_IN_ENVIRONMENT = env.misspelt(os.environ)
