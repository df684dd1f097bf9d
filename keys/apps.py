"""Who may call: partners, their API keys and scopes. And the staff who look after them."""

from typing import Any

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.contrib.admin import autodiscover
from django.contrib.admin import checks as admin_checks
from django.core import checks
from django.db.models.signals import post_migrate


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = "Partners and keys"
    default = True

    def ready(self) -> None:
        from keys import (  # noqa: PLC0415 - they need the models
            expiry,
            openapi,  # noqa: F401 - importing registers the scheme
            roles,
        )
        from keys.staff import events  # noqa: PLC0415 - it needs the models
        from partner_api.ops.metrics import register_collector  # noqa: PLC0415 - it needs the settings

        events.connect()
        post_migrate.connect(roles.sync, sender=self, dispatch_uid="keys.roles")
        register_collector(expiry.expiring_soon)


class StaffAdminConfig(admin_apps.SimpleAdminConfig):
    """Django's admin behind our front door.

    Its pages are loaded with the URLs that lead to them: a worker, beat and most commands show none, and
    start faster without.
    """

    default = False
    default_site = "keys.staff.site.StaffSite"

    def ready(self) -> None:
        checks.register(admin_checks.check_dependencies, checks.Tags.admin)
        checks.register(_check_all_pages, checks.Tags.admin)


def _check_all_pages(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Django's check of the admin, which looks only at pages that are loaded."""
    autodiscover()
    found: list[checks.CheckMessage] = admin_checks.check_admin_app(app_configs, **kwargs)
    return found
