"""How fast a key or an address may call, with Redis and without."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django_redis import get_redis_connection
from prometheus_client import REGISTRY

from keys import audit, gate, key_cache, lifecycle
from keys.models import ApiKey, Partner
from keys.rate_limit import Limit, MemoryLimiter, decide
from tests.api import Api

MINUTE_US = 60_000_000


def _limited(acme: Partner, per_minute: int, burst: int, **fields: Any) -> Api:
    limits: dict[str, Any] = {"rate_limit_per_minute": per_minute, "rate_limit_burst": burst}
    key, text = ApiKey.issue(acme, name="x", environment="live", scopes=["deed:read"], **limits, **fields)
    return Api(acme, key, text)


def test_every_answer_says_how_much_room_is_left(acme: Partner) -> None:
    api = _limited(acme, 2, 30)
    answers = [api.get("/v2/deeds"), api.get("/v2/deeds/01900000-0000-7000-8000-000000000000")]
    answers.append(api.get("/v2/usage-that-is-not-there"))
    assert [answer.status_code for answer in answers] == [200, 404, 404]
    first, second, unknown = answers
    assert (first["X-RateLimit-Limit"], first["X-RateLimit-Remaining"]) == ("2", "29")
    assert second["X-RateLimit-Remaining"] == "28"
    assert first["X-RateLimit-Reset"] == "30"
    assert first["RateLimit-Policy"] == '"burst";q=30;w=900, "sustained";q=2;w=60'
    assert first["RateLimit"] == '"burst";r=29;t=30'
    assert unknown["X-RateLimit-Remaining"] == "27"


def test_a_refusal_says_exactly_how_long_to_wait(acme: Partner) -> None:
    api = _limited(acme, 1, 2)
    redis, bucket = get_redis_connection("limiter"), f"partner_api:bucket:{api.key.key_id}"
    assert [api.get("/v2/deeds").status_code for _ in range(3)] == [200, 200, 429]
    full_at = int(redis.get(bucket))
    longest = _seconds_until(full_at - MINUTE_US)
    answer = api.get("/v2/deeds")
    shortest = _seconds_until(full_at - MINUTE_US)
    assert answer.json()["code"] == "rate_limited"
    assert answer["X-RateLimit-Remaining"] == "0"
    assert 0 < shortest <= int(answer["Retry-After"]) <= longest <= 60
    # The bucket as it will be after those seconds: the request then passes.
    redis.set(bucket, full_at - int(answer["Retry-After"]) * 1_000_000)
    assert [api.get("/v2/deeds").status_code for _ in range(2)] == [200, 429]


def _seconds_until(moment_us: int) -> int:
    """By the limiter's own clock, rounded up."""
    seconds, microseconds = get_redis_connection("limiter").time()
    return int(-(-(moment_us - seconds * 1_000_000 - microseconds) // 1_000_000))


@pytest.mark.django_db(transaction=True)
def test_two_hundred_at_once_pass_exactly_as_many_as_allowed(acme: Partner) -> None:
    api = _limited(acme, 1, 50)
    api.get("/v2/deeds")
    barrier = threading.Barrier(20)

    def client(_: int) -> list[int]:
        barrier.wait()
        try:
            return [api.get("/v2/deeds").status_code for _ in range(10)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(20) as pool:
        statuses = [status for part in pool.map(client, range(20)) for status in part]
    assert sorted(statuses) == [200] * 49 + [429] * 151


def test_a_lower_limit_holds_on_the_next_request(acme: Partner) -> None:
    api = _limited(acme, 6000, 600)
    assert api.get("/v2/deeds").status_code == 200
    by = audit.Actor.command("test")
    lifecycle.change(by, api.key, rate_limit_per_minute=1, rate_limit_burst=1)
    # The request before left the smaller bucket empty.
    assert api.get("/v2/deeds").status_code in {200, 429}
    assert api.get("/v2/deeds").status_code == 429


def test_a_clock_that_moved_back_empties_the_bucket_and_no_more(acme: Partner) -> None:
    api = _limited(acme, 60, 5)
    api.get("/v2/deeds")
    redis, bucket = get_redis_connection("limiter"), f"partner_api:bucket:{api.key.key_id}"
    redis.set(bucket, int(redis.get(bucket)) + 3600 * 1_000_000)
    answer = api.get("/v2/deeds")
    assert (answer.status_code, answer["Retry-After"]) == (429, "1")


def test_bad_keys_are_slowed_down_and_good_ones_of_the_same_address_are_not(api: Api, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 5
    guess = Api(api.partner, api.key, "dp_live_nonsense")
    answers = [guess.get("/v2/deeds") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert 0 < int(answers[-1]["Retry-After"]) <= 60
    assert api.get("/v2/deeds").status_code == 200


def test_whoever_may_not_use_a_key_uses_up_none_of_its_room(acme: Partner, settings: Any) -> None:
    """A thief outside of its networks would stop the partner, who has done nothing."""
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 2
    api = _limited(acme, per_minute=60, burst=3, allowed_cidrs=["203.0.113.0/24"])
    own: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {api.text}", "REMOTE_ADDR": "203.0.113.9"}
    thief = {**own, "REMOTE_ADDR": "198.51.100.7"}
    assert Client().get("/v2/deeds", **own).status_code == 200
    answers = [Client().get("/v2/deeds", **thief).status_code for _ in range(9)]
    assert answers == [401] * 2 + [429] * 7
    assert [Client().get("/v2/deeds", **own).status_code for _ in range(3)] == [200, 200, 429]


def test_networks_that_were_widened_hold_for_the_next_request_of_who_was_refused(acme: Partner) -> None:
    api = _limited(acme, per_minute=60, burst=3, allowed_cidrs=["203.0.113.0/24"])
    assert [api.get("/v2/deeds").status_code for _ in range(2)] == [401, 401]
    # As another process does it: this one still remembers the key.
    with key_cache.changing([api.key]):
        ApiKey.objects.filter(pk=api.key.pk).update(allowed_cidrs=[])
    assert api.get("/v2/deeds").status_code == 200


def test_a_guesser_with_a_whole_ipv6_network_is_one_guesser(client: Any, db: None, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 2
    answers = [client.get("/v2/deeds", REMOTE_ADDR=f"2001:db8:1:2::{number:x}") for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert client.get("/v2/deeds", REMOTE_ADDR="2001:db8:1:3::1").status_code == 401


def test_no_key_at_all_counts_as_well(client: Any, db: None, settings: Any) -> None:
    settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST = 1, 2
    assert [client.get("/v2/deeds").status_code for _ in range(3)] == [401, 401, 429]


def test_routes_without_a_key_are_limited_by_address(client: Any, db: None, settings: Any) -> None:
    settings.PUBLIC_RATE_LIMIT_PER_MINUTE, settings.PUBLIC_RATE_LIMIT_BURST = 1, 2
    path = "/files/deeds/01900000-0000-7000-8000-000000000000.pdf"
    assert [client.get(path).status_code for _ in range(3)] == [404, 404, 429]
    assert client.get(path, REMOTE_ADDR="203.0.113.9").status_code == 404
    assert client.get("/healthz").status_code == 200


@contextmanager
def _no_redis() -> Iterator[None]:
    """The limiter's connections lead to where nobody listens."""
    pool = get_redis_connection("limiter").connection_pool
    right = pool.connection_kwargs["port"]
    pool.connection_kwargs["port"] = 9
    pool.reset()
    vars(gate._connections).clear()
    try:
        yield
    finally:
        pool.connection_kwargs["port"] = right
        pool.reset()
        vars(gate._connections).clear()


def test_without_redis_requests_go_on_and_come_back_by_themselves(acme: Partner, settings: Any) -> None:
    settings.LIMITER_REDIS_RETRY_SECONDS = 0.0
    api = _limited(acme, 1, 3)
    assert api.get("/v2/deeds").status_code == 200
    with _no_redis():
        statuses = [api.get("/v2/deeds").status_code for _ in range(4)]
        mode = REGISTRY.get_sample_value("partner_api_limiter_in_memory")
    # This process counts by itself, from a full bucket on.
    assert statuses == [200, 200, 200, 429]
    assert mode == 1
    assert api.get("/v2/deeds").status_code == 200
    assert REGISTRY.get_sample_value("partner_api_limiter_in_memory") == 0


def test_a_connection_that_redis_closed_is_opened_anew(acme: Partner) -> None:
    api = _limited(acme, 6, 60)
    assert api.get("/v2/deeds")["X-RateLimit-Remaining"] == "59"
    own = gate._connections.redis
    own.send_command("CLIENT", "ID")
    get_redis_connection("default").client_kill_filter(_id=own.read_response())
    assert api.get("/v2/deeds")["X-RateLimit-Remaining"] == "58"
    assert REGISTRY.get_sample_value("partner_api_limiter_in_memory") == 0


def test_revocation_holds_without_redis_too(acme: Partner, settings: Any) -> None:
    settings.LIMITER_REDIS_RETRY_SECONDS = 60.0
    api = _limited(acme, 600, 60)
    assert api.get("/v2/deeds").status_code == 200
    with _no_redis():
        assert api.get("/v2/deeds").status_code == 200
        lifecycle.revoke(audit.Actor.command("test"), api.key, reason="x")
        assert api.get("/v2/deeds").json()["code"] == "api_key_revoked"
    gate._breaker.succeeded()


def test_a_key_that_was_changed_while_redis_was_away_is_read_again_once_it_is_back(
    acme: Partner, settings: Any
) -> None:
    """Redis was not told: it has the tag still under which the key is remembered."""
    settings.LIMITER_REDIS_RETRY_SECONDS = 0.0
    changed, other = (_limited(acme, 600, 60) for _ in range(2))
    assert [each.get("/v2/deeds").status_code for each in (changed, other)] == [200, 200]
    with _no_redis():
        assert other.get("/v2/deeds").status_code == 200
        ApiKey.objects.filter(pk=changed.key.pk).update(scopes=[])
    assert changed.get("/v2/deeds").status_code == 403


def test_a_redis_that_lost_its_scripts_goes_on_counting(acme: Partner) -> None:
    api = _limited(acme, 1, 3)
    assert api.get("/v2/deeds").status_code == 200
    get_redis_connection("limiter").script_flush()
    assert [api.get("/v2/deeds").status_code for _ in range(3)] == [200, 200, 429]
    assert REGISTRY.get_sample_value("partner_api_limiter_in_memory") == 0


def test_nothing_stays_in_redis_for_good(acme: Partner, client: Client, settings: Any) -> None:
    api = _limited(acme, 60, 3)
    assert api.get("/v2/deeds").status_code == 200
    assert client.get("/v2/deeds").status_code == 401
    redis = get_redis_connection("limiter")
    left = {name: redis.ttl(name) for name in redis.scan_iter("partner_api:*")}
    assert len(left) >= 3, "a tag, and buckets of a key and of an address"
    assert all(0 < seconds <= settings.KEY_TAG_SECONDS for seconds in left.values()), left


def test_a_million_names_stay_within_bounds() -> None:
    limiter, limit = MemoryLimiter(1000), Limit(60, 5)
    for number in range(20_000):
        limiter.take(str(number), limit)
    assert len(limiter) == 1000
    assert sys.getsizeof(limiter._full_at_us) < 200_000


def test_a_name_that_has_its_room_back_is_forgotten() -> None:
    now = [0]
    limiter = MemoryLimiter(1000, clock_ns=lambda: now[0])
    for number in range(10):
        limiter.take(str(number), Limit(60, 5))
    now[0] = 10 * 10**9
    for _ in range(20):
        limiter.take("other", Limit(60, 5))
    assert len(limiter) == 1


@pytest.mark.parametrize(("per_minute", "burst"), [(1, 1), (60, 10), (7, 3), (1_000_000, 1)])
def test_whoever_waits_as_told_passes(per_minute: int, burst: int) -> None:
    limit, now, full_at = Limit(per_minute, burst), 10**15, 0
    passed = 0
    for _ in range(burst):
        decision, full_at = decide(limit, full_at, now)
        passed += decision.is_allowed
    assert passed == burst
    refused, full_at = decide(limit, full_at, now)
    assert not refused.is_allowed
    early, full_at = decide(limit, full_at, now + refused.retry_after_us - 1)
    assert not early.is_allowed
    assert decide(limit, full_at, now + refused.retry_after_us)[0].is_allowed


def test_no_minute_sees_more_than_the_sustained_rate_and_the_burst() -> None:
    limit, full_at, passed = Limit(60, 10), 0, 0
    for step in range(6000):
        decision, full_at = decide(limit, full_at, 10**15 + step * MINUTE_US // 6000)
        passed += decision.is_allowed
    assert 69 <= passed <= 70
