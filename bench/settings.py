"""The product's settings, and beside its routes those that it is measured against."""

import os

from partner_api.settings import *  # noqa: F403 - all of them, and then some
from partner_api.settings import INSTALLED_APPS as _APPS
from partner_api.settings import MIDDLEWARE as _MIDDLEWARE

ROOT_URLCONF = "bench.urls"
INSTALLED_APPS = [*_APPS, "rest_framework_api_key", "bench"]

# The receivers of `bench.webhooks` are on this machine, without TLS.
WEBHOOKS_ALLOW_HTTP = True
WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
# The schedule of half a day in seconds, so that the end of it all can be waited for.
WEBHOOKS_SCHEDULE_SECONDS = [0.0, 1.0, 2.0, *[5.0] * 60]
WEBHOOKS_SLOW_SECONDS = 20.0

# What `bench.usage` measures the request log against.
if os.environ.get("BENCH_WITHOUT_REQUEST_LOG"):
    MIDDLEWARE = [name for name in _MIDDLEWARE if name != "billing.request_log.RequestLogMiddleware"]
