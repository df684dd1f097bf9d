"""Every setting of the product, read once from the environment.

A value that decides about safety has no default here that would be unsafe in production: it must be
given, or the process stops and names it. `partner_api.ops.checks` refuses combinations that are
well-formed but insecure. docs/configuration.md explains each setting; a test compares the two.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from partner_api.environment import Env
from partner_api.ops.logging import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
# The real environment wins over .env, and .env over what a running local stack left for its tools.
Env.read_env(BASE_DIR / ".env")
VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var"))).absolute()
Env.read_env(VAR_DIR / "run" / "local.env")

# --- what kind of process this is -------------------------------------------------------------
ENVIRONMENT = env.str("ENVIRONMENT", default="production")
IS_PRODUCTION = ENVIRONMENT not in {"demo", "development", "test"}
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
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
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
    "partner_api.http.security_headers.SecurityHeadersMiddleware",
    "keys.middleware.KeyHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "partner_api.http.routing.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "partner_api.http.routing.CsrfViewMiddleware",
    "partner_api.http.routing.AuthenticationMiddleware",
    "partner_api.http.routing.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
        # A query that runs away must not hold a thread, nor a lock, for ever.
        "options": (
            f"-c statement_timeout={env.int('DATABASE_STATEMENT_TIMEOUT_MS', default=15_000)}"
            f" -c lock_timeout={env.int('DATABASE_LOCK_TIMEOUT_MS', default=5_000)}"
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

DEED_STORAGE_DIR = Path(env.str("DEED_STORAGE_DIR", default=str(VAR_DIR / "storage")))
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "deeds": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": str(DEED_STORAGE_DIR),
            "allow_overwrite": True,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
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
DEED_LEASE_SECONDS = env.int("DEED_LEASE_SECONDS", default=180)
DEED_RETRY_SCHEDULE_SECONDS = [
    int(seconds)
    for seconds in env.list(
        "DEED_RETRY_SCHEDULE_SECONDS",
        default=["30", "120", "600", "1800", "3600", "7200", "14400", "28800", "28800"],
    )
]
DEED_HINT_AGAIN_SECONDS = env.int("DEED_HINT_AGAIN_SECONDS", default=120)
DEED_MAX_CRASHES = env.int("DEED_MAX_CRASHES", default=5)
PDF_LINK_SECONDS = env.int("PDF_LINK_SECONDS", default=24 * 3600)
V1_WAIT_SECONDS = env.float("V1_WAIT_SECONDS", default=25.0)
PREFER_WAIT_MAX_SECONDS = 30.0
WAITING_REQUESTS_PER_PROCESS = env.int("WAITING_REQUESTS_PER_PROCESS", default=12)
ORDER_MAX_BYTES = env.int("ORDER_MAX_BYTES", default=1024 * 1024)
BATCH_MAX_BYTES = env.int("BATCH_MAX_BYTES", default=8 * 1024 * 1024)

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
LIMITER_REDIS_RETRY_SECONDS = env.float("LIMITER_REDIS_RETRY_SECONDS", default=1.0)
LIMITER_MEMORY_ENTRIES = env.int("LIMITER_MEMORY_ENTRIES", default=50_000)

# --- work in the background -------------------------------------------------------------------
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default=REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 900,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    # How long an order waits to hint at itself while the broker is away; the sweeper hints later.
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
# The row is the truth and the sweeper finds it: a broker that is away must not hold a request.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", default=4)
CELERY_WORKER_MAX_TASKS_PER_CHILD = env.int("WORKER_MAX_TASKS_PER_CHILD", default=2000)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=10.0)
CELERY_BEAT_SCHEDULE = {
    "sweep-deeds": {
        "task": "deeds.tasks.sweep",
        "schedule": timedelta(seconds=SWEEP_SECONDS),
        "options": {"expires": SWEEP_SECONDS},
    },
    "warn-of-ending-keys": {"task": "keys.tasks.warn_of_ending_keys", "schedule": timedelta(hours=1)},
}

# --- HTTP -------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["keys.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["keys.permissions.HasScope"],
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
    "POSTPROCESSING_HOOKS": ["partner_api.http.schema.tidy"],
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
}

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
CELERY_BEAT_SCHEDULE["watch"] = {
    "task": "partner_api.ops.tasks.watch",
    "schedule": timedelta(seconds=WATCH_SECONDS),
    "options": {"expires": WATCH_SECONDS},
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

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOG_FORMAT = env.str("LOG_FORMAT", default="json")
LOGGING = logging_config(level=LOG_LEVEL, log_format=LOG_FORMAT)

# A name in .env that nothing above asked for is a slip, which would leave a setting at its default.
env.refuse_misspelt(BASE_DIR / ".env")
