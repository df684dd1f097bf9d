"""What a member of staff proves with besides the password: an authenticator's codes, or a recovery code.

Devices of django-otp, with the secret encrypted and recovery codes hashed: a copy of the database is
not enough to log in.
"""

import hashlib
import secrets
from base64 import b32decode, b32encode
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, urlencode

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone
from django_otp.models import Device, ThrottlingMixin
from django_otp.oath import TOTP

from partner_api.ops.vault import EncryptedTextField

STEP_SECONDS: Final = 30
DIGITS: Final = 6
RECOVERY_CODES: Final = 10
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without those that look alike


def new_secret() -> str:
    return b32encode(secrets.token_bytes(20)).decode()


class Authenticator(ThrottlingMixin, Device):
    """An app that shows a code of six digits each half minute (RFC 6238). One a person."""

    secret = EncryptedTextField(default=new_secret, editable=False)
    # The time step of the last code that was taken: each code works once.
    last_step = models.BigIntegerField(default=-1, editable=False)

    class Meta:
        db_table = "staff_authenticators"
        constraints = [models.UniqueConstraint(fields=["user"], name="one_authenticator_a_person")]

    def __str__(self) -> str:
        return f"authenticator of {self.user}"

    def verify_token(self, token: str) -> bool:
        """Whether this is the code of now, half a minute ago or in half a minute. Call it in a transaction
        with the row locked; wait between failures, twice as long each time."""
        is_allowed, _ = self.verify_is_allowed()
        if not is_allowed:
            return False
        totp = TOTP(b32decode(self.secret), STEP_SECONDS, digits=DIGITS)
        totp.time = timezone.now().timestamp()
        if not totp.verify(_number(token), tolerance=1, min_t=self.last_step + 1):
            self.throttle_increment()
            return False
        self.last_step = totp.t()
        self.throttle_reset(commit=False)
        self.save()
        return True

    def get_throttle_factor(self) -> int:
        return 1

    @property
    def config_url(self) -> str:
        """What the QR code holds."""
        issuer = "Partner API"
        facts = {"secret": self.secret, "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS}
        label = quote(f"{issuer}:{self.user.get_username()}")
        return f"otpauth://totp/{label}?{urlencode({**facts, 'period': STEP_SECONDS}, quote_via=quote)}"


class RecoveryCodes(ThrottlingMixin, Device):
    """For the day the phone is lost. Each code works once; only hashes are kept."""

    digests = ArrayField(models.CharField(max_length=64), default=list, editable=False)

    class Meta:
        db_table = "staff_recovery_codes"
        constraints = [models.UniqueConstraint(fields=["user"], name="one_set_of_recovery_codes_a_person")]

    def __str__(self) -> str:
        return f"recovery codes of {self.user}"

    @classmethod
    def issue(cls, user: Any) -> list[str]:
        """New codes in the place of all earlier ones; their text is kept nowhere."""
        codes = [_new_code() for _ in range(RECOVERY_CODES)]
        cls.objects.update_or_create(
            user=user,
            defaults={"digests": list(_digests(codes)), "name": "recovery codes", "confirmed": True},
        )
        return codes

    def verify_token(self, token: str) -> bool:
        """Whether this is one of the codes left; it is none any more. In a transaction, the row locked."""
        is_allowed, _ = self.verify_is_allowed()
        if not is_allowed:
            return False
        digest = next(_digests([token]))
        if digest not in self.digests:
            self.throttle_increment()
            return False
        self.digests = [other for other in self.digests if other != digest]
        self.throttle_reset(commit=False)
        self.save()
        return True

    def get_throttle_factor(self) -> int:
        return 1


def _new_code() -> str:
    """60 random bits, in three groups."""
    text = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return "-".join((text[:4], text[4:8], text[8:]))


def _digests(codes: Iterable[str]) -> Any:
    for code in codes:
        plain = code.upper().replace("-", "").replace(" ", "")
        yield hashlib.sha256(f"recovery code {plain}".encode()).hexdigest()


def _number(token: str) -> int:
    return int(token) if token.isascii() and token.isdigit() else -1
