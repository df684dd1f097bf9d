"""Stops all workers from calling a renderer that is away, and lets one at a time look whether it is back.

The state is in Redis, one for each renderer and address, so that all workers share it. After
CIRCUIT_FAILURES outages in a row the circuit opens: for CIRCUIT_REST_SECONDS nobody calls, then one
worker may (the probe). After each probe that fails the rest is twice as long, up to a minute. A success
closes it. Without Redis the circuit is taken for closed.

At the sandbox only a failing connection counts, because the faults it answers with were ordered.
"""

import enum
import hashlib
import time
from collections.abc import Iterator
from typing import Final

import structlog
from django.conf import settings
from django_redis import get_redis_connection
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError

from deeds import main_api, metrics
from deeds.main_api import MainApiError, Renderer, renderer_for

log = structlog.get_logger(__name__)

_FORGET_SECONDS: Final = 48 * 3600
# Deeds wait no longer than so for a renderer that is back; the rest grows to six times the first one.
_LONGEST_REST_SECONDS: Final = 60.0
_REST_GROWS_TO: Final = 6

# Hosts' clocks may differ by so much. Whose clock is further before the rest's beginning was put back, and
# would wait for that time once more.
_SKEW_SECONDS: Final = 5

# Each runs as one step in Redis. Times are Unix seconds of the callers' clocks.
_ADMIT: Final = f"""
local now = tonumber(ARGV[1])
local rest = redis.call('HMGET', KEYS[1], 'rest_until', 'rest_since')
if not rest[1] then return 0 end
if now < tonumber(rest[1]) and now > tonumber(rest[2]) - {_SKEW_SECONDS} then return 1 end
redis.call('HSET', KEYS[1], 'rest_until', now + tonumber(ARGV[2]), 'rest_since', now)
return 2
"""
_FAILED: Final = """
local now, rest = tonumber(ARGV[1]), tonumber(ARGV[2])
local rest_until = redis.call('HGET', KEYS[1], 'rest_until')
redis.call('EXPIRE', KEYS[1], ARGV[5])
if rest_until then
  if ARGV[6] == '1' then
    local probes = redis.call('HINCRBY', KEYS[1], 'probes', 1)
    rest = math.max(rest, math.min(tonumber(ARGV[7]), rest * 2 ^ math.min(probes - 1, 16)))
  end
  if ARGV[6] == '1' or now + rest > tonumber(rest_until) then
    redis.call('HSET', KEYS[1], 'rest_until', now + rest, 'rest_since', now)
  end
  return 0
end
local first = redis.call('HGET', KEYS[1], 'first_at')
if not first or now - tonumber(first) > tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'first_at', now, 'failures', 0)
end
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('EXPIRE', KEYS[1], ARGV[5])
if failures < tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], 'rest_until', now + rest, 'rest_since', now)
return 1
"""
_HAND_BACK: Final = """
if redis.call('HEXISTS', KEYS[1], 'rest_until') == 1 then
  redis.call('HSET', KEYS[1], 'rest_until', ARGV[1], 'rest_since', ARGV[1])
end
return 0
"""
_SUCCEEDED: Final = """
local rest_until = redis.call('HGET', KEYS[1], 'rest_until')
redis.call('DEL', KEYS[1])
return rest_until and 1 or 0
"""


class Admission(enum.Enum):
    CLOSED = 0
    OPEN = 1
    PROBE = 2


def admit(renderer: Renderer) -> Admission:
    """Whether a call may be made now. PROBE is given to one caller, who then must call or `hand_back`."""
    # No other probe while this one may still wait for its answer.
    patience = settings.MAIN_API_CONNECT_TIMEOUT_SECONDS + settings.MAIN_API_READ_TIMEOUT_SECONDS + 5
    return Admission(_run(_ADMIT, renderer, time.time(), patience))


def hand_back(renderer: Renderer) -> None:
    """A probe that was not used: the next caller may have it."""
    _run(_HAND_BACK, renderer, time.time())


def failed(renderer: Renderer, error: MainApiError, *, is_probe: bool) -> None:
    """Counts an outage. What only says something about one order does not count."""
    if not error.is_outage:
        return
    is_asked_for = (error.retry_after or 0) > settings.MAIN_API_RETRY_AFTER_MAX_SECONDS
    rest = max(error.retry_after or 0.0, settings.CIRCUIT_REST_SECONDS)
    longest_rest = min(_REST_GROWS_TO * settings.CIRCUIT_REST_SECONDS, _LONGEST_REST_SECONDS)
    # A renderer that says how long it wants to be left alone is believed the first time.
    threshold = 1 if is_asked_for else settings.CIRCUIT_FAILURES
    arguments = (
        time.time(),
        rest,
        settings.CIRCUIT_WINDOW_SECONDS,
        threshold,
        _FORGET_SECONDS,
        int(is_probe),
        longest_rest,
    )
    if _run(_FAILED, renderer, *arguments):
        log.warning("circuit_opened", renderer=renderer.name, code=error.code)
        metrics.CIRCUIT_MOVES.labels(renderer.name, "open").inc()


def succeeded(renderer: Renderer) -> bool:
    """True when this call closed the circuit."""
    is_closed_now = bool(_run(_SUCCEEDED, renderer))
    if is_closed_now:
        log.info("circuit_closed", renderer=renderer.name)
        metrics.CIRCUIT_MOVES.labels(renderer.name, "closed").inc()
    return is_closed_now


def state(renderer: Renderer) -> str:
    """`closed`, `open`, or `half_open` (the next call is a probe). Changes nothing."""
    try:
        return _state(renderer)
    except RedisError:
        return "closed"


def _state(renderer: Renderer) -> str:
    rest = get_redis_connection("default").hmget(_key(renderer), "rest_until", "rest_since")
    if None in rest:
        return "closed"
    until, since = map(float, rest)
    return "open" if since - _SKEW_SECONDS < time.time() < until else "half_open"


def suspended() -> Iterator[Metric]:
    """For Prometheus, looked up in Redis; without it the figure is missing, and the look failed."""
    family = GaugeMetricFamily(
        "partner_api_circuit_open", "1 while calls to a renderer are suspended.", labels=["renderer"]
    )
    for livemode in (True, False):
        renderer = renderer_for(livemode=livemode)
        family.add_metric([renderer.name], float(_state(renderer) != "closed"))
    yield family


def check() -> dict[str, str]:
    """For `/readyz`: whether the Main API's host answers, and what the circuit to it is."""
    renderer = renderer_for(livemode=True)
    circuit = state(renderer)
    try:
        main_api.look()
    except main_api.Unreachable:
        return {"status": "unavailable", "circuit": circuit}
    return {"circuit": circuit} if circuit == "closed" else {"status": "unavailable", "circuit": circuit}


def _run(script: str, renderer: Renderer, *arguments: float) -> int:
    try:
        return int(get_redis_connection("default").eval(script, 1, _key(renderer), *arguments))
    except RedisError as error:
        log.warning("circuit_without_redis", reason=type(error).__name__)
        return Admission.CLOSED.value


def _key(renderer: Renderer) -> str:
    return f"circuit:{renderer.name}:{hashlib.sha256(renderer.base_url.encode()).hexdigest()[:16]}"
