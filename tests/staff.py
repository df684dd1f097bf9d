"""Members of staff in tests: made with a role, and logged in as they really are, by password and code."""

import re
from base64 import b32decode
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP

from keys import roles
from keys.models import AuditEntry, Authenticator

PASSWORD = "correct horse battery staple"
INSIDE = "/admin/jsi18n/"  # the cheapest page behind the login


def hire(name: str, *held: str, is_superuser: bool = False, enrolled: bool = True) -> Any:
    """A member of staff with these roles (names of keys.roles)."""
    user = get_user_model().objects.create_user(
        name, password=PASSWORD, is_staff=True, is_superuser=is_superuser
    )
    user.groups.set(Group.objects.filter(name__in=[roles.TITLES[role] for role in held]))
    if enrolled:
        Authenticator.objects.create(user=user, name="test", confirmed=True)
    return user


def code_of(user: Any) -> str:
    """What the authenticator of this person shows; the next one where the current one was used."""
    device = Authenticator.objects.get(user=user)
    return code_at(device.secret, max(device.last_step + 1, int(timezone.now().timestamp()) // 30))


def code_at(secret: str, step: int) -> str:
    totp = TOTP(b32decode(secret))
    totp.time = step * 30
    return f"{totp.token():06}"


def log_in(user: Any, client: Client | None = None, **form: str) -> Client:
    """A client in which this person is logged in. Fails where the login is refused."""
    client = client or Client(raise_request_exception=False)
    answer = post_login(client, user.username, code_of(user), **form)
    assert answer.status_code == 302, answer.content.decode()
    return client


def post_login(client: Client, name: str, token: str = "", password: str = PASSWORD, **form: str) -> Any:
    return client.post(
        "/admin/login/", {"username": name, "password": password, "token": token, "next": "/admin/", **form}
    )


def is_in(client: Client) -> bool:
    """Whether a page behind the login opens."""
    return bool(client.get(INSIDE).status_code == 200)


STALE = "It was changed since this page was opened. Open the page again to see how."


def seen(client: Client, url: str) -> str:
    """What a browser sends with the form that it was shown, so that its page can be told from a later one."""
    field = re.search(r'<input[^>]*name="seen"[^>]*>', client.get(url).content.decode())
    assert field is not None, f"{url} does not say on what it was opened"
    value = re.search(r'value="([^"]+)"', field[0])
    assert value is not None
    return value[1]


def actions() -> list[str]:
    """What the audit trail has, in order."""
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
