"""The product's settings, and beside its routes those that it is measured against."""

from partner_api.settings import *  # noqa: F403 - all of them, and then some
from partner_api.settings import INSTALLED_APPS as _APPS

ROOT_URLCONF = "bench.urls"
INSTALLED_APPS = [*_APPS, "rest_framework_api_key", "bench"]
