"""Deeds whose PDFs are kept, in tests."""

import uuid
from collections.abc import Callable
from typing import Any

from django.test import Client
from django.utils import timezone

from deeds import line, tasks
from deeds.models import Deed
from tests.api import Api

Orders = Callable[..., dict[str, Any]]
Complete = Callable[..., Deed]


def run(deed: Deed) -> Deed:
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    return deed


def claim(deed: Deed) -> uuid.UUID:
    """A lease on the deed, whose turn it must be."""
    claimed = line.claim_next(is_bulk=deed.is_bulk, modes=[deed.livemode], now=timezone.now())
    assert claimed is not None
    assert claimed[0] == deed
    deed.refresh_from_db()
    return claimed[1]


def link_of(api: Api, deed: Deed) -> str:
    url: str = api.get(f"/v2/deeds/{deed.pk}").json()["pdf"]["url"]
    return url.removeprefix("http://testserver")


def get(client: Client, path: str, **headers: str) -> Any:
    return client.get(path, headers=headers)
