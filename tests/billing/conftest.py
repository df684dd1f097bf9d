"""The request log in tests, with a spool of the test's own; and a Stripe twin on a port of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from billing import draining
from billing.models import ApiUsage
from billing.spool import Spool
from partner_api.local.stripe_twin.server import Twin
from partner_api.local.stripe_twin.world import World


@pytest.fixture(autouse=True)
def spool(settings: Any, tmp_path: Any) -> Iterator[Spool]:
    settings.USAGE_SPOOL_DIR = tmp_path / "spool"
    draining.spool.cache_clear()
    yield draining.spool()
    draining.spool.cache_clear()


@pytest.fixture
def logged(spool: Spool) -> Callable[[], list[ApiUsage]]:
    """Drains, and gives the log in the order of the requests."""

    def rows() -> list[ApiUsage]:
        draining.drain()
        return list(ApiUsage.objects.order_by("at", "id"))

    return rows


@pytest.fixture
def twin(settings: Any) -> Iterator[Twin]:
    """A rule that the product broke fails the test, unless the test took it out of `violations`."""
    # Stripe's 100 other calls a second are tested by themselves; waiting for them here would only take time.
    running = Twin(World(per_second_other=100_000))
    with running.serving() as url:
        settings.STRIPE_SECRET_KEY = running.world.secret_key
        settings.STRIPE_WEBHOOK_SECRETS = [running.webhooks.secret]
        settings.STRIPE_API_BASE = url
        settings.STRIPE_MAX_NETWORK_RETRIES = 0
        settings.STRIPE_TIMEOUT_SECONDS = 5.0
        settings.STRIPE_CALLS_PER_SECOND = 100_000
        yield running
    assert running.world.violations == {}
