"""What a process remembers of keys, and how it learns that one has changed."""

import contextvars
import datetime as dt
import secrets
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import OperationalError, transaction
from django.utils import timezone
from django_redis import get_redis_connection

from keys import audit, key_cache, lifecycle
from keys.models import ApiKey
from tests.api import Api

BY = audit.Actor.command("test")


def test_a_known_key_costs_no_query(api: Api, nothing_is_due: None, django_assert_num_queries: Any) -> None:
    api.get("/v2/deeds")
    with django_assert_num_queries(1):  # the deeds
        api.get("/v2/deeds")


def test_an_act_that_dies_after_its_commit_still_holds(api: Api) -> None:
    """The mark was set before; without the new tag nothing is remembered, and the row is read."""
    assert api.get("/v2/deeds").status_code == 200
    key_cache._mark([api.key.key_id], key_cache.MARK + secrets.token_hex(8).encode())
    ApiKey.objects.filter(pk=api.key.pk).update(scopes=[])
    assert [api.get("/v2/deeds").status_code for _ in range(2)] == [403, 403]


def test_an_act_that_is_rolled_back_leaves_the_key_as_it_was(api: Api) -> None:
    assert api.get("/v2/deeds").status_code == 200
    with transaction.atomic():
        lifecycle.change(BY, api.key, scopes=[])
        transaction.set_rollback(True)
    assert api.get("/v2/deeds").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_refused_act_leaves_no_mark(api: Api) -> None:
    with pytest.raises(ValidationError):
        lifecycle.change(BY, api.key, rate_limit_burst=0)
    tag = get_redis_connection("default").get(key_cache.tag_name(api.key.key_id))
    assert tag is not None
    assert not tag.startswith(key_cache.MARK)


@pytest.mark.django_db(transaction=True)
def test_an_act_of_which_nobody_knows_whether_it_was_committed_leaves_its_mark(api: Api) -> None:
    with pytest.raises(OperationalError), key_cache.changing([api.key]):
        raise OperationalError
    tag = get_redis_connection("default").get(key_cache.tag_name(api.key.key_id))
    assert tag.startswith(key_cache.MARK)


@pytest.mark.django_db(transaction=True)
def test_of_two_acts_at_once_the_one_that_ends_last_holds_too(api: Api) -> None:
    def another_act() -> None:
        with key_cache.changing([api.key]):
            pass

    with key_cache.changing([api.key]):
        contextvars.Context().run(another_act)  # another process'
        # Its end gave a new tag, under which the key is remembered as it was.
        assert api.get("/v2/deeds").status_code == 200
        ApiKey.objects.filter(pk=api.key.pk).update(scopes=[])
    assert api.get("/v2/deeds").status_code == 403


@pytest.mark.django_db(transaction=True)
def test_of_two_acts_at_once_the_first_to_end_keeps_the_mark_of_the_other(api: Api) -> None:
    redis, tag = get_redis_connection("default"), key_cache.tag_name(api.key.key_id)
    elsewhere, other = contextvars.Context(), key_cache.changing([api.key])
    with key_cache.changing([api.key]):
        elsewhere.run(other.__enter__)
        mark = redis.get(tag)
        assert mark.startswith(key_cache.MARK)
    assert redis.get(tag) == mark
    elsewhere.run(other.__exit__, None, None, None)
    assert not redis.get(tag).startswith(key_cache.MARK)


@pytest.mark.django_db(transaction=True)
def test_an_act_within_an_act_on_the_same_key_leaves_redis_alone(api: Api) -> None:
    redis, tag = get_redis_connection("default"), key_cache.tag_name(api.key.key_id)
    with key_cache.changing([api.key]):
        mark = redis.get(tag)
        with key_cache.changing([api.key]):
            pass
        assert redis.get(tag) == mark
    assert not redis.get(tag).startswith(key_cache.MARK)


def test_a_redis_that_forgot_everything_makes_keys_be_read_again(api: Api) -> None:
    assert api.get("/v2/deeds").status_code == 200
    ApiKey.objects.filter(pk=api.key.pk).update(scopes=[])
    get_redis_connection("default").flushdb()
    assert api.get("/v2/deeds").status_code == 403


def test_nothing_is_remembered_for_longer_than_the_setting(api: Api, settings: Any) -> None:
    """The last resort, where Redis could not be told: KEY_CACHE_SECONDS."""
    assert api.get("/v2/deeds").status_code == 200
    ApiKey.objects.filter(pk=api.key.pk).update(scopes=[])
    assert api.get("/v2/deeds").status_code == 200
    settings.KEY_CACHE_SECONDS = 0.0
    assert api.get("/v2/deeds").status_code == 403


def test_the_last_use_is_written_once_a_minute(api: Api) -> None:
    api.get("/v2/deeds")
    first = ApiKey.objects.get(pk=api.key.pk)
    assert (first.last_used_address, first.last_used_at is None) == ("127.0.0.1", False)
    key_cache.forget_all()
    api.get("/v2/deeds")
    assert ApiKey.objects.get(pk=api.key.pk).last_used_at == first.last_used_at


@pytest.mark.parametrize(("ahead_seconds", "is_mended"), [(59, False), (3600, True)])
def test_a_last_use_by_a_clock_that_ran_ahead_is_mended_by_the_next(
    api: Api, ahead_seconds: int, is_mended: bool
) -> None:
    """Clocks of two machines may differ a little; that costs no write for each request."""
    future = timezone.now() + dt.timedelta(seconds=ahead_seconds)
    ApiKey.objects.filter(pk=api.key.pk).update(last_used_at=future, last_used_address="203.0.113.9")
    api.get("/v2/deeds")
    key = ApiKey.objects.get(pk=api.key.pk)
    assert key.last_used_address == ("127.0.0.1" if is_mended else "203.0.113.9")
    assert key.last_used_at is not None
    assert (key.last_used_at < future) == is_mended
