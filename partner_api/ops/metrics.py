"""Where metrics are counted, so that several processes add up.

Each app declares its own in its `metrics` module with prometheus_client's types; what Prometheus reads
is put together here. docs/metrics.md lists them all.
"""

from typing import Final

# From a quick read to a request that waits for its deed.
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
