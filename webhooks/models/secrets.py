"""Signing secrets that overlap while they are rotated: how many there are, and until when each holds."""

import datetime as dt
import functools
import json
from typing import Final

from django.db import models

from partner_api.ops import vault
from partner_api.ops.vault import EncryptedTextField

# Each further secret costs every message one more signature.
MAX_SECRETS: Final = 5


class SecretHolder(models.Model):
    """`secrets` is JSON, newest first: `[[secret, null or the end of its validity], …]`."""

    secrets = EncryptedTextField(editable=False)

    class Meta:
        abstract = True

    def secrets_at(self, now: dt.datetime) -> list[str]:
        """Those that hold at `now`, newest first."""
        return [secret for secret, ends_at in self._pairs() if ends_at is None or ends_at > now]

    def give_secret(self, secret: str, *, now: dt.datetime, overlap: dt.timedelta) -> None:
        """Puts a secret in front; those before it hold for `overlap` longer at most. Not saved yet."""
        ends_at = now + overlap
        kept = [
            (earlier, min(ends_at, until or ends_at))
            for earlier, until in (self._pairs() if self.secrets else [])
            if overlap and (until is None or until > now)
        ]
        pairs: list[tuple[str, dt.datetime | None]] = [(secret, None), *kept][:MAX_SECRETS]
        self.secrets = json.dumps([[text, until and until.isoformat()] for text, until in pairs])

    def _pairs(self) -> list[tuple[str, dt.datetime | None]]:
        return _pairs_of(self.secrets)


def secrets_of(sealed: str, now: dt.datetime) -> list[str]:
    """Those that hold at `now`, of a column's value as it stands in the database."""
    return [secret for secret, ends_at in _opened(sealed) if ends_at is None or ends_at > now]


@functools.lru_cache(maxsize=1024)
def _opened(sealed: str) -> list[tuple[str, dt.datetime | None]]:
    """Decrypting costs more than all else that an inbound request does; a changed secret is another key."""
    return _pairs_of(vault.decrypt(sealed))


def _pairs_of(text: str) -> list[tuple[str, dt.datetime | None]]:
    return [
        (secret, dt.datetime.fromisoformat(ends_at) if ends_at else None)
        for secret, ends_at in json.loads(text)
    ]
