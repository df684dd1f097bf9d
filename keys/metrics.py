"""What is counted of keys and limits."""

from prometheus_client import Counter, Gauge

auth_failures = Counter(
    "partner_api_auth_failures_total", "Requests refused for their credentials, by error code.", ["code"]
)
rate_limited = Counter(
    "partner_api_rate_limited_total",
    "Requests answered 429, by what was limited: key, auth, login or public.",
    ["what"],
)
limiter_in_memory = Gauge(
    "partner_api_limiter_in_memory",
    "1 while a process limits by itself because Redis is away, else 0.",
    multiprocess_mode="livemax",
)
