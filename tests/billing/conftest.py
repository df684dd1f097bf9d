"""The request log in tests: a spool of the test's own, and its rows on demand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from billing import draining
from billing.models import ApiUsage
from billing.spool import Spool


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
