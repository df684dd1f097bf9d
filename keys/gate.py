"""One call to Redis for each request: is the key as this process remembers it, and is there room for it.

While Redis is away requests go on: rows are read instead of remembered, and each process limits by
itself. A breaker keeps them from waiting for a Redis that does not answer, one request at a time asks
again, and the log and a metric say so once.
"""

import hashlib
import os
import secrets
import threading
from typing import Any, Final

import structlog
from django.conf import settings
from django_redis import get_redis_connection
from redis.exceptions import NoScriptError, RedisError

from keys import key_cache, metrics
from keys.rate_limit import Decision, Limit, MemoryLimiter
from partner_api.breaker import Breaker

log = structlog.get_logger(__name__)

# KEYS: the tag, the bucket. ARGV: the tag expected ("" for none known), a new tag, its seconds, the
# interval in microseconds, the burst. Answers {is the tag the expected one, the tag, …decision}.
# The arithmetic is that of `rate_limit.decide`. Numbers stay below 2^53 until the year 2255.
_TAKE: Final = """
local interval, burst = tonumber(ARGV[4]), tonumber(ARGV[5])
if KEYS[1] ~= '' then
  local tag = redis.call('GET', KEYS[1])
  if not tag then
    tag = ARGV[2]
    redis.call('SET', KEYS[1], tag, 'EX', ARGV[3])
  end
  if tag ~= ARGV[1] then return {0, tag} end
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local depth = interval * burst
local before = math.min(math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), now), now + depth)
local after = before + interval
local over = after - now - depth
if over > 0 then return {1, ARGV[1], 0, before - now, over} end
redis.call('SET', KEYS[2], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return {1, ARGV[1], math.floor(-over / interval), after - now, 0}
"""
# By which Redis knows it, once it has run it.
_SHA: Final = hashlib.sha1(_TAKE.encode()).hexdigest()  # noqa: S324 - Redis' own choice


_breaker = Breaker()
_connections = threading.local()
_memory = MemoryLimiter(settings.LIMITER_MEMORY_ENTRIES)
_NO_LIMIT: Final = Limit(1, 1)


def tag_of(key_id: str) -> bytes:
    """The tag under which a row that is read now may be remembered; empty while Redis is away."""
    # No tag is empty, so this never counts.
    found = _run(key_cache.tag_name(key_id), _bucket(key_id), b"", _NO_LIMIT)
    return b"" if found is None else bytes(found[1])


def count(key_id: str, tag: bytes, limit: Limit) -> Decision | None:
    """Counts a request of a key that was read under this tag; None when it must be read again.

    With an empty tag the row was just read and Redis is away: this process counts by itself.
    """
    if not tag:
        return _memory.take(key_id, limit)
    found = _run(key_cache.tag_name(key_id), _bucket(key_id), tag, limit)
    return _decision(limit, found) if found is not None and found[0] else None


def take(name: str, limit: Limit) -> Decision:
    """Counts a request under any other name, such as an address."""
    found = _run("", _bucket(name), b"", limit)
    return _memory.take(name, limit) if found is None else _decision(limit, found)


def _decision(limit: Limit, found: list[Any]) -> Decision:
    return Decision(limit, int(found[2]), int(found[3]), int(found[4]))


def _bucket(name: str) -> str:
    return f"partner_api:bucket:{name}"


def _run(tag_name: str, bucket: str, tag: bytes, limit: Limit) -> list[Any] | None:
    """The script's answer; None while Redis is away."""
    moment = settings.LIMITER_REDIS_RETRY_SECONDS
    if not _breaker.may_ask(after_seconds=moment):
        return None
    try:
        found = _ask(tag_name, bucket, tag, secrets.token_hex(8), limit)
    except RedisError as error:
        if _breaker.failed(after_seconds=moment):
            metrics.limiter_in_memory.set(1)
            log.warning("limiter_without_redis", reason=type(error).__name__)
            # What is remembered may change while nobody can be told.
            key_cache.forget_all()
        return None
    if _breaker.succeeded():
        metrics.limiter_in_memory.set(0)
        log.info("limiter_with_redis_again")
    return found


def _ask(tag_name: str, bucket: str, tag: bytes, new_tag: str, limit: Limit) -> list[Any]:
    """Without the client around the connection: it costs as much again as the call, and would try again and
    again, for which the breaker is there. A connection that failed is opened anew by redis-py.
    """
    arguments = (tag_name, bucket, tag, new_tag, settings.KEY_TAG_SECONDS, limit.interval_us, limit.burst)
    redis = _own_connection()
    try:
        redis.send_command("EVALSHA", _SHA, 2, *arguments)
        return redis.read_response()  # type: ignore[no-any-return]  # its stub says Any
    except NoScriptError:
        # A Redis that was started anew.
        redis.send_command("EVAL", _TAKE, 2, *arguments)
        return redis.read_response()  # type: ignore[no-any-return]  # as above


def _own_connection() -> Any:
    """This thread's, which it keeps: to take one of the pool and give it back costs as much as the call.

    One that has something to read before it was asked was closed by Redis, or has lost its place; it is
    opened anew.
    """
    pool = get_redis_connection("limiter").connection_pool
    owner = (os.getpid(), pool)
    if getattr(_connections, "owner", None) != owner:
        _connections.owner, _connections.redis = owner, pool.make_connection()
    redis = _connections.redis
    if redis.is_connected:
        try:
            is_whole = not redis.can_read()
        except RedisError:
            is_whole = False
        if not is_whole:
            redis.disconnect()
    return redis
