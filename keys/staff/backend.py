"""Password and second factor, checked together: whoever lacks either learns only that it was not enough.

A wrong code counts as a failed login, so that the lockout bounds guesses of codes too. A person without
a confirmed authenticator passes with the password alone, and can then only enrol.
"""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db import transaction
from django.http import HttpRequest
from django_otp.models import Device

from keys.models import Authenticator, RecoveryCodes
from keys.models.second_factor import DIGITS


class PasswordAndCode(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        token: str = "",
        **kwargs: Any,
    ) -> Any:
        """The user, with `otp_device` where a second factor was shown; None where anything is wrong."""
        user = super().authenticate(request, username=username, password=password, **kwargs)
        if user is None or not Authenticator.objects.filter(user=user, confirmed=True).exists():
            return user
        device = device_for(user, token)
        if device is None:
            return None
        user.otp_device = device  # type: ignore[attr-defined]  # django_otp puts it into the session
        return user


def device_for(user: Any, token: str) -> Device | None:
    """The device that this is a code of; the code is used up with that."""
    return authenticator_for(user, token) if _is_of_app(token) else _verified(RecoveryCodes, user, token)


def authenticator_for(user: Any, token: str) -> Device | None:
    """The same where only a code of the app will do; a recovery code is not looked at, and stays good."""
    return _verified(Authenticator, user, token) if _is_of_app(token) else None


def _is_of_app(token: str) -> bool:
    token = _without_spaces(token)
    return len(token) == DIGITS and token.isascii() and token.isdigit()


def _without_spaces(token: str) -> str:
    return token.strip().replace(" ", "")


def _verified(kind: type[Authenticator] | type[RecoveryCodes], user: Any, token: str) -> Device | None:
    token = _without_spaces(token)
    # Locked, so that of two logins with one code one fails.
    with transaction.atomic():
        device = kind.objects.select_for_update().filter(user=user, confirmed=True).first()
        return device if device is not None and token and device.verify_token(token) else None
