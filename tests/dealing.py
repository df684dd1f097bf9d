"""Which worker runs what, and when: tests that take long come first, and are dealt like cards.

Otherwise the longest would be some worker's last, and the others would have nothing left to take from it.
"""

import os
from typing import Final

import pytest

# Fixtures of tests that start processes of the product.
_LONG: Final = {"deployment", "demo", "given"}
# The longest of them, the longest first.
_LONGEST: Final = (
    "test_a_fuzzer_finds_nothing[live]",
    "test_two_demos_serve_side_by_side_and_one_that_ends_leaves_the_other",
    "test_once_makes_the_first_deed_and_a_billing_month_and_ends",
    "test_no_order_is_lost_or_doubled_while_processes_die",
    "test_the_development_server_answers_as_production_does",
    "test_all_are_made_soon_after_it_is_back",
    "test_a_fuzzer_finds_nothing[test]",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = _dealt(items, workers)


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """As xdist gives each worker one stretch of the list, of the same length."""
    long = sorted((item for item in items if _is_long(item)), key=_rank)
    short = [item for item in items if not _is_long(item)]
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(dealt)) // (workers - worker)
        mine = long[worker::workers]
        rest = max(0, size - len(mine))
        dealt += mine + short[:rest]
        del short[:rest]
    return dealt + short


def _is_long(item: pytest.Item) -> bool:
    return not _LONG.isdisjoint(getattr(item, "fixturenames", ()))


def _rank(item: pytest.Item) -> int:
    return _LONGEST.index(item.name) if item.name in _LONGEST else len(_LONGEST)
