"""What billing counts for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge

from partner_api.ops.metrics import begin_at_zero

usage_rows_written: Final = Counter(
    "partner_api_usage_rows_written_total", "Requests written to the request log's spool."
)
usage_rows_lost: Final = Counter(
    "partner_api_usage_rows_lost_total",
    "Requests that could not be logged: the spool was unwritable or full, or making the row failed.",
    ["reason"],
)
begin_at_zero(usage_rows_lost, ("full", "unwritable"))
usage_rows_stored: Final = Counter(
    "partner_api_usage_rows_stored_total", "Rows of the request log stored in Postgres."
)
usage_rows_unreadable: Final = Counter(
    "partner_api_usage_rows_unreadable_total", "Lines of the spool that are no rows: torn or damaged."
)
usage_drain_failures: Final = Counter(
    "partner_api_usage_drain_failures_total", "Attempts to store the spool that failed; they are repeated."
)
usage_spool_bytes: Final = Gauge(
    "partner_api_usage_spool_bytes",
    "Bytes of the spool that are not stored yet.",
    multiprocess_mode="mostrecent",
)
usage_spool_age: Final = Gauge(
    "partner_api_usage_spool_age_seconds",
    "Age of the oldest file of the spool that holds rows.",
    multiprocess_mode="mostrecent",
)
usage_rows_without_partition: Final = Gauge(
    "partner_api_usage_rows_without_partition",
    "Rows of the request log in the default partition: of a month that has none of its own.",
    multiprocess_mode="mostrecent",
)
