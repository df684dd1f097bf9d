"""A partner's API key. The rules about one key stand on the row."""

import datetime as dt
import hmac
import ipaddress
from typing import Any

import uuid_utils.compat
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import ExpressionWrapper, F, Q, Value
from django.utils import timezone

from keys.models.partner import Partner
from keys.scopes import GRANTABLE, why_not_grantable
from keys.secret import PATTERN, KeyText
from partner_api.http.client_address import unmapped

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_RATE = 1_000_000
# Each request with the key is compared with all of them.
MAX_NETWORKS = 100
MAX_SCOPES = len(GRANTABLE)


def _default_rate_limit_per_minute() -> int:
    return int(settings.DEFAULT_RATE_LIMIT_PER_MINUTE)


def _default_rate_limit_burst() -> int:
    return int(settings.DEFAULT_RATE_LIMIT_BURST)


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def ended(self, now: dt.datetime) -> "ApiKeyQuerySet":
        """Revoked or expired."""
        return self.filter(_ended_at(now))

    def not_ended(self, now: dt.datetime) -> "ApiKeyQuerySet":
        return self.exclude(_ended_at(now))

    def with_rotation_due(self) -> "ApiKeyQuerySet":
        """`due_at`: what `ApiKey.rotation_due_at` says of each."""
        day = Value(dt.timedelta(days=1))
        due_at = F("created_at") + F("partner__key_max_age_days") * day
        return self.annotate(due_at=ExpressionWrapper(due_at, output_field=models.DateTimeField()))

    def due_for_rotation(self, now: dt.datetime) -> "ApiKeyQuerySet":
        """Those that their partner's policy wants replaced within KEY_WARNING_DAYS, or did before, and that
        have neither ended nor a successor."""
        kept = self.not_ended(now).filter(replaced_by=None)
        return kept.with_rotation_due().filter(Q(due_at__lte=now + _warning_time()))


def _ended_at(now: dt.datetime) -> Q:
    return Q(revoked_at__isnull=False) | Q(expires_at__lte=now)


def _warning_time() -> dt.timedelta:
    return dt.timedelta(days=settings.KEY_WARNING_DAYS)


class ApiKey(models.Model):
    """A partner's key. Only the SHA-256 of its secret is kept; the text is shown once, when issued."""

    class Environment(models.TextChoices):
        LIVE = "live"
        TEST = "test"

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    partner = models.ForeignKey(Partner, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    environment = models.CharField(max_length=4, choices=Environment)
    key_id = models.CharField(max_length=16, unique=True, editable=False)
    secret_sha256 = models.CharField(max_length=64, editable=False)
    scopes = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    rate_limit_per_minute = models.PositiveIntegerField(default=_default_rate_limit_per_minute)
    rate_limit_burst = models.PositiveIntegerField(default=_default_rate_limit_burst)
    allowed_cidrs = ArrayField(
        models.CharField(max_length=43),
        default=list,
        blank=True,
        help_text="Networks that may use the key, such as 203.0.113.0/24; empty for all.",
    )
    not_before = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    replaced_by = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="replaces", editable=False
    )
    rotated_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_used_address = models.GenericIPAddressField(null=True, editable=False)
    rotation_warned_at = models.DateTimeField(null=True, editable=False)
    # The end that was told of then; of another one the partner is told again.
    warned_for = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_reason = models.CharField(max_length=200, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        db_table = "api_keys"
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        indexes = [models.Index(fields=["partner", "-created_at"], name="api_keys_of_partner")]
        constraints = [
            models.CheckConstraint(
                condition=Q(environment__in=["live", "test"]), name="api_key_environment_is_known"
            ),
            models.CheckConstraint(
                condition=Q(revoked_at__isnull=False) | Q(revoked_reason=""),
                name="api_key_reason_only_if_revoked",
            ),
            models.CheckConstraint(
                condition=Q(rate_limit_per_minute__gte=1) & Q(rate_limit_burst__gte=1),
                name="api_key_limits_are_positive",
            ),
            models.CheckConstraint(
                condition=Q(replaced_by=None, rotated_at=None)
                | Q(replaced_by__isnull=False, rotated_at__isnull=False, expires_at__isnull=False),
                name="api_key_that_was_rotated_ends",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prefix} ({self.name})"

    @classmethod
    def issue(
        cls,
        partner: Partner,
        *,
        name: str,
        environment: str,
        scopes: list[str] | None = None,
        **fields: Any,
    ) -> tuple["ApiKey", str]:
        """A saved key and its text, which is kept nowhere. A key has no scope unless given.

        `fields` are other fields of the model, such as `expires_at` or `rate_limit_per_minute`.
        Raises ValidationError when a value is not allowed.
        """
        key = cls(partner=partner, name=name, environment=environment, scopes=scopes or [], **fields)
        text = key.give_secret()
        key.full_clean()
        key.save(force_insert=True)
        return key, text

    def give_secret(self) -> str:
        """A new id and secret for a key that is not saved yet; the text, which is kept nowhere."""
        text = KeyText.generate(self.environment)
        self.key_id, self.secret_sha256 = text.id, text.digest
        return text.text

    @property
    def prefix(self) -> str:
        """What may be shown and logged: `dp_live_` and the id."""
        return f"dp_{self.environment}_{self.key_id}"

    @property
    def livemode(self) -> bool:
        return self.environment == self.Environment.LIVE

    @property
    def networks(self) -> list[Network]:
        return [ipaddress.ip_network(cidr) for cidr in self.allowed_cidrs]

    def clean(self) -> None:
        """Also brings networks to their one form. Raises ValidationError by field."""
        errors: dict[str, list[str]] = {}
        for name, most in (("scopes", MAX_SCOPES), ("allowed_cidrs", MAX_NETWORKS)):
            if len(getattr(self, name)) > most:
                raise ValidationError({name: [f"At most {most}."]})
        if PATTERN.search(self.name):
            errors["name"] = ["A key's text can't stand here: a name is shown to many."]
        elif not self.name.isprintable():
            errors["name"] = ["Control characters can't stand here: a name is shown on terminals too."]
        unknown = [reason for scope in self.scopes if (reason := why_not_grantable(scope))]
        if unknown:
            errors["scopes"] = unknown
        try:
            self.allowed_cidrs = [str(network_of(cidr)) for cidr in self.allowed_cidrs]
        except ValueError as error:
            errors["allowed_cidrs"] = [f"{error}; write a network as 203.0.113.0/24 or 2001:db8::/32."]
        for name in ("rate_limit_per_minute", "rate_limit_burst"):
            if not 1 <= getattr(self, name) <= MAX_RATE:
                errors[name] = [f"It must be from 1 to {MAX_RATE:,}."]
        if self.not_before and self.expires_at and self.expires_at <= self.not_before:
            errors["expires_at"] = ["The key would end before it begins."]
        elif self._state.adding and self.expires_at and self.expires_at <= timezone.now():
            errors["expires_at"] = ["It lies in the past."]
        if errors:
            raise ValidationError(errors)

    def matches(self, text: KeyText) -> bool:
        """Whether the text is this key's, compared in constant time."""
        is_secret = hmac.compare_digest(text.digest, self.secret_sha256)
        return is_secret and text.environment == self.environment

    def refusal_at(self, now: dt.datetime) -> str | None:
        """The error code for a request at `now`, or None while the key is usable.

        A key that is not valid yet is `invalid_api_key`: it has no code of its own.
        """
        if self.revoked_at is not None:
            return "api_key_revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "api_key_expired"
        if self.not_before is not None and self.not_before > now:
            return "invalid_api_key"
        if self.partner.status != Partner.Status.ACTIVE:
            return "partner_suspended"
        return None

    def state_at(self, now: dt.datetime) -> str:
        """`active`, `pending` (not valid yet), `rotated` (valid for its overlap), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.not_before is not None and self.not_before > now:
            return "pending"
        return "rotated" if self.replaced_by_id is not None else "active"

    def rotation_due_at(self) -> dt.datetime | None:
        """When the partner's policy wants another key in its place; None without a policy."""
        days = self.partner.key_max_age_days
        return None if days is None else self.created_at + dt.timedelta(days=days)

    def revoke(self, *, now: dt.datetime, reason: str) -> bool:
        """Ends the key for good. False when it was revoked before; the first reason stays.

        `keys.lifecycle.revoke` is what callers want: it also audits, tells, and clears the caches.
        """
        changed = ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(
            revoked_at=now, revoked_reason=reason[:200]
        )
        self.refresh_from_db(fields=["revoked_at", "revoked_reason"])
        return changed == 1


def network_of(text: str) -> Network:
    """An IPv4-mapped IPv6 network as IPv4. Raises ValueError where host bits are set, or for no network."""
    network: Network = unmapped(ipaddress.ip_network(text.strip()))
    return network
