"""Latencies as histograms that can be added, and percentiles of the sum.

Buckets grow by a factor of 2^(1/8), eight to a doubling, from 1 ms; a percentile is given as the geometric
middle of its bucket, so that it is off by 4.5 % at the most (and never by more than 1 ms below that).
Percentiles themselves can't be added; histograms can, over any number of hours, keys and partners.
"""

import math
from collections.abc import Mapping
from typing import Final

PER_DOUBLING: Final = 8
# 2^17 ms is over two minutes: no request lives longer.
LAST: Final = 17 * PER_DOUBLING + 1
# Bucket 0 is all below a millisecond.
BUCKET_SQL: Final = (
    f"CASE WHEN latency_ms < 1 THEN 0 ELSE least({LAST},"
    f" floor({PER_DOUBLING} * ln(latency_ms) / ln(2::float8))::int + 1) END"
)


def percentiles(counts: Mapping[int, int]) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds, of counts by bucket. None where nothing was counted."""
    total = sum(counts.values())
    return {name: _at(counts, share, total) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def middle_of(bucket: int) -> float:
    """Milliseconds that stand for all latencies of a bucket."""
    if bucket == 0:
        return 0.5
    return math.exp2((bucket - 0.5) / PER_DOUBLING)


def _at(counts: Mapping[int, int], share: float, total: int) -> float | None:
    if not total:
        return None
    # The nearest-rank definition: the smallest value that this share of all does not exceed.
    rank = math.ceil(share * total)
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return round(middle_of(bucket), 1)
    raise AssertionError(rank)  # the counts add up to the total
