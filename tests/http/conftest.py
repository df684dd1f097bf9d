"""A Stripe twin and the back office, whose requests have idempotency keys too."""

from tests.billing.conftest import twin
from tests.keys.conftest import shared_secret

__all__ = ["shared_secret", "twin"]
