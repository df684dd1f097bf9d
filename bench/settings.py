"""The product's settings, and beside its routes those that it is measured against."""

from partner_api.settings import *  # noqa: F403 - all of them, and then some
from partner_api.settings import INSTALLED_APPS as _APPS

ROOT_URLCONF = "bench.urls"
INSTALLED_APPS = [*_APPS, "rest_framework_api_key", "bench"]

# The receivers of `bench.webhooks` are on this machine, without TLS.
WEBHOOKS_ALLOW_HTTP = True
WEBHOOKS_ALLOW_PRIVATE_ADDRESSES = ["127.0.0.1/32"]
# The schedule of half a day in seconds, so that the end of it all can be waited for.
WEBHOOKS_SCHEDULE_SECONDS = [0.0, 1.0, 2.0, *[5.0] * 60]
WEBHOOKS_SLOW_SECONDS = 20.0
