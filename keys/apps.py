"""Who may call: partners, their API keys and scopes. And the staff who look after them."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
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


class StaffAdminConfig(admin_apps.AdminConfig):
    """Django's admin behind our front door."""

    default = False
    default_site = "keys.staff.site.StaffSite"
