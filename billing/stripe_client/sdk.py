"""The SDK as we use it: which version, how long, how fast, and what its exceptions mean.

It repeats what a network or a 5xx broke; 429 is left to the task, which can wait.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import requests
import stripe
from django.conf import settings

from billing import pacing
from billing.stripe_client import Busy, Gone, KeyReused, Misconfigured, Refused, Unavailable

API_VERSION: Final = "2026-10-28.endive"
# The most that Stripe lists at once.
PAGE: Final = 100
T = TypeVar("T")


def call(run: Callable[[], T]) -> T:
    """At our pace. Raises StripeFault."""
    pacing.CALLS.wait()
    with faults():
        return run()


def all_of(run: Callable[[], Any]) -> list[Any]:
    """A list's things, of all its pages; each page is a call. Raises StripeFault."""
    page = call(run)
    things = list(page.data)
    while page.has_more:
        page = call(page.next_page)
        things += page.data
    return things


def made(
    create: Callable[..., Any], params: Any, idempotency_key: str, *, look: Callable[[], Any] = lambda: None
) -> Any:
    """What `create` answers, once for the key.

    Stripe repeats a key's first answer for a day: a 5xx, done or not, and a refusal whose cause may be gone.
    `look` then says whether it is there; what is not is made under another key. Raises StripeFault.
    """
    try:
        return call(lambda: create(params, under(idempotency_key)))
    except (Unavailable, Refused) as fault:
        if not fault.is_replayed:
            raise
    return look() or call(lambda: create(params))


def v1() -> Any:
    return client().v1


def client() -> stripe.StripeClient:
    return _client_of(
        settings.STRIPE_SECRET_KEY,
        settings.STRIPE_API_BASE,
        settings.STRIPE_TIMEOUT_SECONDS,
        settings.STRIPE_MAX_NETWORK_RETRIES,
    )


def under(idempotency_key: str) -> Any:
    """The call's options: the same key again is the same call to Stripe."""
    return {"idempotency_key": idempotency_key}


@contextmanager
def faults() -> Iterator[None]:
    """The SDK's exceptions as ours."""
    try:
        yield
    except stripe.RateLimitError as error:
        body: Any = error.json_body or {}
        code = (body.get("error") or {}).get("code")
        raise Busy(code or "rate_limit", _message(error)) from error
    except stripe.IdempotencyError as error:
        raise KeyReused("idempotency_error", _message(error)) from error
    except stripe.InvalidRequestError as error:
        kind = Gone if error.code == "resource_missing" else Refused
        raise _refused(error, kind, error.code or "invalid_request") from error
    except stripe.CardError as error:
        raise _refused(error, Refused, error.code or "card_error") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Misconfigured("stripe_key_refused", _message(error)) from error
    except stripe.APIConnectionError as error:
        raise Unavailable("no_answer", type(error.__cause__ or error).__name__) from error
    except stripe.StripeError as error:
        is_replayed = replayed(error)
        code = f"status_{error.http_status}"
        raise Unavailable(code, _message(error), is_replayed=is_replayed) from error


def header(answer: Any, name: str) -> str:
    """Of a StripeError or of an object's `last_response`; empty where there is none."""
    headers: Any = getattr(answer, "headers", None)
    return str(headers.get(name, "")) if headers else ""


def replayed(answer: Any) -> bool:
    """Whether it is the answer that an earlier call with the same idempotency key was given."""
    return header(answer, "Idempotent-Replayed") == "true"


def _refused(error: stripe.InvalidRequestError | stripe.CardError, kind: type[Refused], code: str) -> Refused:
    return kind(code, _message(error), error.param or "", is_replayed=replayed(error))


def _message(error: stripe.StripeError) -> str:
    return str(error.user_message or error)[:400]


@functools.lru_cache(maxsize=4)
def _client_of(key: str, api: str, timeout: float, retries: int) -> stripe.StripeClient:
    stripe.enable_telemetry = False
    # The SDK tells of each call at INFO, with the ids of customers in the addresses.
    logging.getLogger("stripe").setLevel(logging.WARNING)
    return stripe.StripeClient(
        key,
        stripe_version=API_VERSION,
        base_addresses={"api": api},
        http_client=_Http(timeout=timeout),
        max_network_retries=retries,
    )


class _Http(stripe.RequestsClient):
    """The SDK's own, without proxies, .netrc or CA bundles of the environment: the calls carry our key."""

    def _request_internal(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._thread_local, "session", None) is None:
            session = requests.Session()
            session.trust_env = False
            self._thread_local.session = session
        return super()._request_internal(*args, **kwargs)
