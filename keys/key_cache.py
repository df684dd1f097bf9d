"""The keys that a process has seen, and how it learns that one of them has changed.

Redis holds a random tag for each key in use. A process may answer from memory while the tag is the one
that it read before it loaded the row: the call that counts the request compares them, so this costs no
further round trip. An act on a key replaces the tag by a mark before it commits, and nothing is
remembered under a mark; a process that dies in between leaves the mark, and with it the slower road.
Redis that forgot a tag, or is away, means: read the row.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import structlog
from django.conf import settings
from django.db import Error, transaction
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from keys.models import ApiKey, Partner
from keys.models.api_key import Network

log = structlog.get_logger(__name__)

MARK: Final = b"!"
# Longer than any act on a key can take: statements are bounded, and an act has few of them.
_MARK_SECONDS: Final = 300
_MOST: Final = 10_000
# The mark of another act stays: that one has not ended. A tag is replaced, because one that was given since
# this act's mark may stand for what was read before its commit.
_REPLACE: Final = """
local tag = redis.call('GET', KEYS[1])
if tag and (tag == ARGV[1] or string.sub(tag, 1, 1) ~= '!') then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
"""
_DROP: Final = """
local tag = redis.call('GET', KEYS[1])
if tag and string.sub(tag, 1, 1) ~= '!' then redis.call('DEL', KEYS[1]) end
"""


@dataclass(slots=True)
class KnownKey:
    """A key with its partner as it was under `tag`. Shared by threads: nothing may write to it."""

    key: ApiKey
    networks: list[Network]
    tag: bytes
    loaded_at: float


_known: OrderedDict[str, KnownKey] = OrderedDict()
_lock = threading.Lock()
# Keys whose mark this thread set already, further out.
_marked: ContextVar[frozenset[str]] = ContextVar("marked", default=frozenset())


def tag_name(key_id: str) -> str:
    return f"partner_api:key:{key_id}:tag"


def recall(key_id: str) -> KnownKey | None:
    """What is remembered of a key, unless it is older than KEY_CACHE_SECONDS."""
    known = _known.get(key_id)
    if known is None or time.monotonic() - known.loaded_at > settings.KEY_CACHE_SECONDS:
        return None
    return known


def exists(key_id: str) -> bool:
    return ApiKey.objects.filter(key_id=key_id).exists()


def load(key_id: str, tag: bytes) -> KnownKey | None:
    """The row of a key, remembered under a tag that was read before. None where there is no such key."""
    key = ApiKey.objects.select_related("partner").filter(key_id=key_id).first()
    if key is None:
        return None
    known = KnownKey(key, key.networks, tag, time.monotonic())
    if tag and not tag.startswith(MARK):
        with _lock:
            _known[key_id] = known
            _known.move_to_end(key_id)
            if len(_known) > _MOST:
                _known.popitem(last=False)
    return known


def forget(key_id: str) -> None:
    with _lock:
        _known.pop(key_id, None)


def forget_all() -> None:
    with _lock:
        _known.clear()


@contextmanager
def changing(keys: Iterable[ApiKey]) -> Iterator[None]:
    """Around the transaction that changes keys. Inside another transaction, until that one commits.

    Inside another of its kind, for the same keys, it does nothing: so who opens a transaction around an act
    can have Redis told before it.
    """
    ids = [key.key_id for key in keys if key.key_id not in _marked.get()]
    if not ids:
        yield
        return
    mark = MARK + secrets.token_hex(8).encode()
    outer = _marked.set(_marked.get() | frozenset(ids))
    try:
        _mark(ids, mark)
        yield
    except Error:
        # Nobody knows whether it was committed, or will be: the mark stays.
        raise
    except BaseException:
        # What was refused changed nothing.
        transaction.on_commit(lambda: _retag(ids, mark), robust=True)
        raise
    else:
        transaction.on_commit(lambda: _retag(ids, mark), robust=True)
    finally:
        _marked.reset(outer)


@contextmanager
def changing_partner(partner: Partner) -> Iterator[None]:
    """The same for all keys of a partner, those issued meanwhile included."""
    with changing(partner.api_keys.all()):
        yield
    transaction.on_commit(lambda: _drop(partner), robust=True)


def _mark(ids: list[str], mark: bytes) -> None:
    try:
        with get_redis_connection("default").pipeline(transaction=False) as pipeline:
            for key_id in ids:
                pipeline.set(tag_name(key_id), mark, ex=_MARK_SECONDS)
            pipeline.execute()
    except RedisError as error:
        # Without Redis every process reads the row; what is remembered ends after KEY_CACHE_SECONDS.
        log.warning("key_tag_not_marked", reason=type(error).__name__)


def _retag(ids: list[str], mark: bytes) -> None:
    try:
        with get_redis_connection("default").pipeline(transaction=False) as pipeline:
            for key_id in ids:
                new = secrets.token_hex(8)
                pipeline.eval(_REPLACE, 1, tag_name(key_id), mark, new, settings.KEY_TAG_SECONDS)
            pipeline.execute()
    except RedisError as error:
        log.warning("key_tag_not_replaced", reason=type(error).__name__)


def _drop(partner: Partner) -> None:
    """Deletes the tags of all keys but those that change just now: who remembers one then reads its row."""
    try:
        with get_redis_connection("default").pipeline(transaction=False) as pipeline:
            for key_id in partner.api_keys.values_list("key_id", flat=True):
                pipeline.eval(_DROP, 1, tag_name(key_id))
            pipeline.execute()
    except RedisError as error:
        log.warning("key_tag_not_dropped", reason=type(error).__name__)
