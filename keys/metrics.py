"""What is counted of keys and limits."""

from prometheus_client import Counter, Gauge

from partner_api.ops.metrics import begin_at_zero

auth_failures = Counter(
    "partner_api_auth_failures_total", "Requests refused for their credentials, by error code.", ["code"]
)
begin_at_zero(
    auth_failures,
    (
        "authentication_required",
        "invalid_api_key",
        "api_key_expired",
        "api_key_revoked",
        "partner_suspended",
        "ip_not_allowed",
    ),
)
rate_limited = Counter(
    "partner_api_rate_limited_total",
    "Requests answered 429, by what was limited: key, auth, login or public.",
    ["what"],
)
begin_at_zero(rate_limited, ("key", "auth", "login", "public", "source", "signature"))
limiter_in_memory = Gauge(
    "partner_api_limiter_in_memory",
    "1 while a process limits by itself because Redis is away, else 0.",
    multiprocess_mode="livemax",
)
