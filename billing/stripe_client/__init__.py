"""The only place that speaks to Stripe: one call a function, typed facts back, faults by what they mean.

A module a kind of thing; each call that makes something has an idempotency key of ours, so that a retry
of a task is the same call to Stripe. Here stand the faults that every caller must know.
"""

from django.conf import settings


def is_configured() -> bool:
    return bool(settings.STRIPE_SECRET_KEY)


def is_livemode() -> bool:
    """The mode of our key; events of the other one are not ours."""
    return str(settings.STRIPE_SECRET_KEY).startswith(("sk_live_", "rk_live_"))


class StripeFault(Exception):
    """Stripe did not do it, or did not say so. `code` is short and stable, the message is Stripe's.

    `is_replayed` is True for the answer of an earlier call, repeated for its idempotency key: it says nothing
    about today.
    """

    def __init__(self, code: str, message: str, *, is_replayed: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.is_replayed = is_replayed


class Unavailable(StripeFault):
    """No answer, or a 5xx: whether it was done is not known. Ask again, under the same identity."""


class Busy(StripeFault):
    """429: too fast, or another call holds the lock. It was not done."""


class Refused(StripeFault):
    """A 4xx: it was not done, and the same call won't be. `param` names what was wrong."""

    def __init__(self, code: str, message: str, param: str = "", *, is_replayed: bool = False) -> None:
        super().__init__(code, message, is_replayed=is_replayed)
        self.param = param


class Gone(Refused):
    """It names something that Stripe does not have (any more)."""


class KeyReused(Refused):
    """Our idempotency key was used for another call: a fault of ours."""


class Misconfigured(StripeFault):
    """Our secret key is wrong or may not do this."""


class BadSignature(Exception):
    """A webhook that none of our secrets signed, or too long ago."""
