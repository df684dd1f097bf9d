"""Logins, failed logins and lockouts, as the audit trail tells them.

What was typed as a name is kept only where it is one: people type their passwords there. What counts
failures keeps the digest of any other.
"""

import datetime as dt
from typing import Any

from axes.signals import user_locked_out
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from keys import audit
from keys.audit import Actor
from keys.models import AuditEntry, Authenticator, RecoveryCodes
from keys.staff import gate
from partner_api.http import request_id
from partner_api.http.client_address import address_of, counted_network

UNKNOWN = "(unknown)"
UNKNOWN_AN_HOUR = 20
# In the session of who logged in without a second factor, because there was none: it may make one.
MAY_ENROL = "may_enrol"


def connect() -> None:
    user_logged_in.connect(_logged_in, dispatch_uid="keys.staff")
    user_logged_out.connect(_logged_out, dispatch_uid="keys.staff")
    user_login_failed.connect(_login_failed, dispatch_uid="keys.staff")
    user_locked_out.connect(_locked_out, dispatch_uid="keys.staff")


def counted_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """Under which name django-axes counts a failure: another one where nobody has what was typed."""
    name = (credentials or request.POST).get("username")
    if not isinstance(name, str) or _user(name) is not None:
        return name
    return f"{UNKNOWN} {salted_hmac('keys.staff.counted_name', name).hexdigest()}"


def _logged_in(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    if not user.is_staff:
        return
    gate.begin(request)
    device = getattr(user, "otp_device", None)
    facts: dict[str, Any] = {"second_factor": "none yet"}
    if isinstance(device, RecoveryCodes):
        facts = {"second_factor": "recovery code", "recovery_codes_left": len(device.digests)}
    elif device is not None:
        facts = {"second_factor": "authenticator"}
    elif not Authenticator.objects.filter(user=user, confirmed=True).exists():
        request.session[MAY_ENROL] = True
    audit.record(_actor(request, user.get_username()), "staff.logged_in", user, after=facts)


def _logged_out(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    if user is not None and user.is_staff:
        audit.record(_actor(request, user.get_username()), "staff.logged_out", user)


def _login_failed(
    sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any
) -> None:
    if request is None or getattr(request, "axes_locked_out", False):
        return  # a lockout has its own entry, and what is tried after it none: it can't fill the trail
    user = _user(credentials.get("username"))
    actor = _actor(request, user.get_username() if user else UNKNOWN)
    if user is None and _has_tried_enough(actor):
        return
    audit.record(actor, "staff.login_failed", user)


def _locked_out(sender: Any, request: HttpRequest, username: str | None, **_: Any) -> None:
    if getattr(request, "axes_failures_since_start", None) is None:
        return  # locked out before
    user = _user(username)
    actor = _actor(request, user.get_username() if user else UNKNOWN)
    if user is None and _has_tried_enough(actor):
        return
    audit.record(actor, "staff.locked_out", user)


def _has_tried_enough(actor: Actor) -> bool:
    """Made-up names are locked out one by one, so their entries need a bound of their own, by address."""
    since = timezone.now() - dt.timedelta(hours=1)
    failures = AuditEntry.objects.filter(action__in=["staff.login_failed", "staff.locked_out"], at__gt=since)
    recent = failures.filter(_is_of_same_line(actor.address), target_id="")
    return recent[:UNKNOWN_AN_HOUR].count() >= UNKNOWN_AN_HOUR


def _is_of_same_line(address: str | None) -> Q:
    if address is None:
        return Q(address=None)
    network = counted_network(address)
    return Q(address__range=(str(network.network_address), str(network.broadcast_address)))


def _user(name: Any) -> Any:
    return get_user_model().objects.filter(username=name).first() if isinstance(name, str) else None


def _actor(request: HttpRequest, name: str) -> Actor:
    return Actor("staff", name, address_of(request), request_id.of(request))
