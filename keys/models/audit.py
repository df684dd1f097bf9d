"""One line of the audit trail: who did what to which object, from where, with what effect.

The table is append-only (triggers refuse UPDATE, DELETE and TRUNCATE), and each row carries the hash
of the one before it, so that an edited, removed or inserted row is found by `manage.py verify_audit`.
The head says how many there are and which is the last, signed, so that the last rows can't go unseen.
"""

from django.db import models
from django.db.models import Q


class AuditEntry(models.Model):
    class ActorKind(models.TextChoices):
        STAFF = "staff"
        KEY = "key"
        TOKEN = "token"
        COMMAND = "command"
        SYSTEM = "system"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=10, choices=ActorKind)
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=60, db_index=True)
    target_kind = models.CharField(max_length=60)
    target_id = models.CharField(max_length=64)
    partner = models.ForeignKey(
        "keys.Partner", on_delete=models.PROTECT, null=True, related_name="audit_entries"
    )
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    reason = models.CharField(max_length=500, blank=True)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, blank=True)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        db_table = "audit_entries"
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["target_kind", "target_id", "-id"], name="audit_of_target")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor}: {self.action} {self.target_kind} {self.target_id}"


class AuditHead(models.Model):
    """Where the chain ends: one row, moved with each entry and signed with a key outside the database."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    count = models.PositiveBigIntegerField()
    last_id = models.BigIntegerField()
    hash = models.CharField(max_length=64)
    signature = models.CharField(max_length=64)

    class Meta:
        db_table = "audit_head"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="audit_has_one_head")]

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"
