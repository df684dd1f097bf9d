"""The answer to a request that had an idempotency key, kept so that the same request gets it again.

A row is written by the transaction that holds what the request did: there is none without the other.
"""

import datetime as dt
import json
from typing import Final, Self

from django.db import models
from django.db.models import Q
from django.http import HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from partner_api import prepared
from partner_api.encryption import decrypt, encrypt, rotate

STORED: Final = ("scope", "key", "fingerprint", "status", "headers_and_body", "expires_at")
_STORE: Final = f"""
INSERT INTO kept_answers ({", ".join(STORED)}) VALUES ({", ".join(["%s"] * len(STORED))})
ON CONFLICT (scope, key) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in STORED[2:])}
"""  # noqa: S608 - names of our own


class EncryptedAnswerField(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """What `hold` has encrypted. `manage.py rotate_secrets` asks for it anew, by the first key."""

    def rotated(self, token: str) -> str:
        return rotate(token)


class KeptAnswerQuerySet(models.QuerySet["KeptAnswer"]):
    def expired(self, now: dt.datetime) -> Self:
        return self.filter(expires_at__lte=now)


class KeptAnswer(models.Model):
    """`scope` is whose key it is, in the words of whoever authenticated; opaque here."""

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    # Encrypted: an answer can hold a new key's secret, and always holds what a partner sent.
    headers_and_body = EncryptedAnswerField()
    expires_at = models.DateTimeField()

    objects = KeptAnswerQuerySet.as_manager()

    # Headers and body in clear, where this process has just made them.
    _content: tuple[dict[str, str], str] | None = None

    class Meta:
        db_table = "kept_answers"
        indexes = [models.Index(fields=["expires_at"], name="kept_answers_by_expiry")]
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="one_answer_per_idempotency_key"),
            models.CheckConstraint(condition=Q(status__range=(200, 399)), name="kept_answer_is_a_success"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"

    def hold(self, response: Response) -> None:
        """Takes its status, headers and body; nothing is stored yet."""
        body = b"" if response.data is None else JSONRenderer().render(response.data)
        # DRF decides on the media type when it renders; until then the header has Django's default.
        headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        self.status = response.status_code
        self._content = (headers, body.decode())
        self.headers_and_body = encrypt(json.dumps(self._content))

    def store(self) -> None:
        """One of the same key that has expired and is not purged yet is written over."""
        with prepared.cursor() as cursor:
            cursor.execute(_STORE, [getattr(self, name) for name in STORED])

    def as_response(self, *, is_replayed: bool = False) -> HttpResponse:
        """Status, headers and body as they were; and, where it is replayed, the header that says so."""
        headers, body = self._content or json.loads(decrypt(self.headers_and_body))
        replayed = {"Idempotent-Replayed": "true"} if is_replayed else {}
        return HttpResponse(
            body, status=self.status, headers={"Content-Type": "application/json", **headers, **replayed}
        )
