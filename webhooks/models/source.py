"""A system that may send orders for a partner: `softpro`, `qualia`, and whichever has an adapter."""

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.utils import timezone

from keys.models import Partner
from webhooks.models.secrets import SecretHolder


class Source(SecretHolder):
    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    system = models.CharField(max_length=30)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="webhook_sources")
    livemode = models.BooleanField(default=True)
    strict = models.BooleanField(
        default=True, help_text="Refuse requests without X-Webhook-Timestamp: these could be replayed."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        db_table = "webhook_sources"
        constraints = [
            models.UniqueConstraint(
                fields=["system", "partner", "livemode"], name="one_source_per_system_partner_and_mode"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.system} of {self.partner}"

    @property
    def must_be_named(self) -> bool:
        """Whether its sender must send `X-Webhook-Source`: others of its system fill what is tried."""
        before = Source.objects.filter(system=self.system, pk__lt=self.pk)
        return before.count() >= int(settings.WEBHOOKS_SOURCES_TRIED)
