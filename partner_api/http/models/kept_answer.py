"""The answer to a request that had an idempotency key, kept so that the same request gets it again.

A row is written by the transaction that holds what the request did: there is none without the other.
"""

import datetime as dt
import json
from typing import Any, Self

from django.db import models
from django.db.models import Q
from django.http import HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from partner_api.encryption import decrypt, encrypt


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
    headers_and_body = models.TextField()
    expires_at = models.DateTimeField()

    objects = KeptAnswerQuerySet.as_manager()

    class Meta:
        db_table = "kept_answers"
        indexes = [models.Index(fields=["expires_at"], name="kept_answers_by_expiry")]
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="one_answer_per_idempotency_key"),
            models.CheckConstraint(condition=Q(status__range=(200, 399)), name="kept_answer_is_a_success"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"

    @classmethod
    def content_of(cls, response: Response) -> dict[str, Any]:
        """The fields that hold a response: `status` and `headers_and_body`."""
        body = b"" if response.data is None else JSONRenderer().render(response.data)
        # DRF decides on the media type when it renders; until then the header has Django's default.
        headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        text = json.dumps([headers, body.decode()])
        return {"status": response.status_code, "headers_and_body": encrypt(text)}

    def as_response(self) -> HttpResponse:
        """Status, headers and body as they were, and the header that says so."""
        headers, body = json.loads(decrypt(self.headers_and_body))
        return HttpResponse(
            body,
            status=self.status,
            headers={"Content-Type": "application/json", **headers, "Idempotent-Replayed": "true"},
        )
