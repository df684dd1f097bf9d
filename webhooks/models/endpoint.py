"""A partner's address for news: what it wants to hear, and how it has been answering."""

import datetime as dt
from typing import Final, Self

import uuid_utils.compat
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from keys.models import Partner
from webhooks.models.secrets import SecretHolder

# A failure this long after the one before says nothing of the time between.
_SAME_OUTAGE: Final = dt.timedelta(days=2)
_CLEAN: Final = {"failing_since": None, "last_failure_at": None, "slow_until": None}


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def standing(self) -> Self:
        """Those that were not deleted."""
        return self.filter(deleted_at=None)

    def slow(self, now: dt.datetime) -> Self:
        return self.filter(slow_until__gt=now)

    def not_slow(self, now: dt.datetime) -> Self:
        return self.filter(Q(slow_until=None) | Q(slow_until__lte=now))

    def untold(self) -> Self:
        """Those that we disabled, and whose owner was not written to yet."""
        reasons = [Endpoint.Reason.FAILING, Endpoint.Reason.GONE]
        return self.filter(disabled_reason__in=reasons, told_at=None)


class Endpoint(SecretHolder):
    class Reason(models.TextChoices):
        """Why no news is sent to it."""

        PARTNER = "by_partner"
        STAFF = "by_staff"
        FAILING = "failing"
        GONE = "gone"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="webhook_endpoints")
    livemode = models.BooleanField()
    url = models.CharField(max_length=2000)
    event_types = ArrayField(models.CharField(max_length=60))
    description = models.CharField(max_length=200, blank=True)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=12, choices=Reason, blank=True)
    disabled_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True)

    failing_since = models.DateTimeField(null=True)
    last_failure_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    slow_until = models.DateTimeField(null=True)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        db_table = "webhook_endpoints"
        indexes = [
            models.Index(fields=["partner", "livemode", "-id"], name="endpoints_newest_first"),
            models.Index(
                fields=["disabled_at"],
                condition=Q(disabled_reason__in=["failing", "gone"], told_at=None),
                name="endpoints_untold",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(enabled=True, disabled_reason="", disabled_at=None, deleted_at=None)
                | (Q(enabled=False, disabled_at__isnull=False) & ~Q(disabled_reason="")),
                name="endpoint_has_a_reason_once_disabled",
            ),
        ]

    def __str__(self) -> str:
        return self.url

    def places_at(self, now: dt.datetime) -> int:
        """How many deliveries to it may be under way at once.

        One while it is unproven, failing or slow, so that what hangs holds up as little as it can.
        """
        is_sound = self.last_success_at and self.failing_since is None and not self.is_slow_at(now)
        return int(settings.WEBHOOKS_ENDPOINT_CONCURRENCY) if is_sound else 1

    def is_slow_at(self, now: dt.datetime) -> bool:
        return self.slow_until is not None and self.slow_until > now

    def disable(self, reason: str, *, now: dt.datetime, still_at: str | None = None) -> bool:
        """False when it is disabled already, the first reason stays; or when it has another URL by now."""
        enabled = Endpoint.objects.filter(pk=self.pk, enabled=True)
        if still_at is not None:
            enabled = enabled.filter(url=still_at)
        return bool(
            enabled.update(enabled=False, disabled_reason=reason, disabled_at=now, told_at=None),
        )

    def enable(self) -> bool:
        """With a clean record. False when it is enabled already, or was deleted."""
        return bool(
            Endpoint.objects.standing()
            .filter(pk=self.pk, enabled=False)
            .update(enabled=True, disabled_reason="", disabled_at=None, told_at=None, **_CLEAN)
        )

    def clear_record(self) -> None:
        """As if it had never failed."""
        Endpoint.objects.filter(pk=self.pk).update(**_CLEAN)

    def move(self, url: str) -> None:
        """What was learned of the earlier URL says nothing of this one."""
        Endpoint.objects.filter(pk=self.pk).update(url=url, last_success_at=None, **_CLEAN)

    def delete_softly(self, *, now: dt.datetime, by: Reason = Reason.PARTNER) -> bool:
        """Its deliveries stay readable. False when it was deleted before."""
        self.disable(by, now=now)
        return bool(Endpoint.objects.standing().filter(pk=self.pk).update(deleted_at=now))

    def note_success(self, *, now: dt.datetime, slow_for: dt.timedelta | None) -> None:
        """Of the URL that this object has. `slow_for` is given when it took too long."""
        slow = {"slow_until": now + slow_for} if slow_for else {}
        Endpoint.objects.filter(pk=self.pk, url=self.url).update(
            failing_since=None, last_success_at=now, **slow
        )

    def note_failure(self, *, now: dt.datetime, slow_for: dt.timedelta | None) -> None:
        """Of the URL that this object has. `slow_for` is given when it took too long."""
        is_new = Q(failing_since=None) | Q(last_failure_at__lte=now - _SAME_OUTAGE)
        slow = {"slow_until": now + slow_for} if slow_for else {}
        Endpoint.objects.filter(pk=self.pk, url=self.url).update(
            failing_since=Case(When(is_new, then=Value(now)), default=F("failing_since")),
            last_failure_at=now,
            **slow,
        )
