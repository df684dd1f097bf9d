"""Limits of those who have no key: by the address that a request comes from, of IPv6 by its /64."""

from typing import Any

from django.conf import settings

from keys import gate, metrics
from keys.rate_limit import Decision, Limit
from partner_api.http.client_address import counted_as
from partner_api.http.problems import Problem


def refuse_too_many(decision: Decision, what: str) -> None:
    """Raises Problem `rate_limited`, with a Retry-After after which the request passes."""
    if decision.is_allowed:
        return
    metrics.rate_limited.labels(what).inc()
    seconds = decision.retry_after_seconds
    raise Problem(
        "rate_limited",
        f"{decision.limit.per_minute} requests a minute are allowed, {decision.limit.burst} at once; "
        f"send this one again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )


def count_failure(request: Any) -> None:
    """Counts credentials that were refused. A good key from the same address is never refused for it.

    Raises Problem `rate_limited` in place of the refusal once there are too many.
    """
    limit = Limit(settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST)
    refuse_too_many(gate.take(f"failed:{counted_as(request)}", limit), "auth")


def count_login(request: Any) -> None:
    """Counts a login to the admin before its password is looked at. Raises Problem `rate_limited`."""
    limit = Limit(settings.STAFF_LOGINS_PER_MINUTE, settings.STAFF_LOGINS_BURST)
    refuse_too_many(gate.take(f"login:{counted_as(request)}", limit), "login")


def count_public(request: Any) -> None:
    """Counts a request to a route that needs no key. Raises Problem `rate_limited`."""
    limit = Limit(settings.PUBLIC_RATE_LIMIT_PER_MINUTE, settings.PUBLIC_RATE_LIMIT_BURST)
    refuse_too_many(gate.take(f"public:{counted_as(request)}", limit), "public")
