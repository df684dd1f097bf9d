"""Deeds whose PDFs are kept, in tests."""

from collections.abc import Callable
from typing import Any

from django.test import Client

from deeds import tasks
from deeds.models import Deed
from tests.api import Api

Orders = Callable[..., dict[str, Any]]
Complete = Callable[..., Deed]


def run(deed: Deed) -> Deed:
    tasks.render(str(deed.pk))
    deed.refresh_from_db()
    return deed


def link_of(api: Api, deed: Deed) -> str:
    url: str = api.get(f"/v2/deeds/{deed.pk}").json()["pdf"]["url"]
    return url.removeprefix("http://testserver")


def get(client: Client, path: str, **headers: str) -> Any:
    return client.get(path, headers=headers)
