"""Where PDFs are kept, and the only place that makes links to them.

Partners get links of our own, which work for PDF_LINK_SECONDS and whose use we log. Where the storage
has addresses of its own (S3, CloudFront), ours leads on to one that was made in that moment: it never
outlives the credentials that signed it.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from django.conf import settings
from django.core.files.storage import storages
from django.urls import reverse

from deeds.models import Deed
from deeds.stores import EXPIRE, HOLD, StoredObject, StoreUnavailable
from partner_api.http import signed_links

# The folder of all PDFs; what else lies in a bucket is not ours.
_FOLDER = "deeds"


@dataclass(frozen=True)
class Link:
    """A URL that works without a key until it expires."""

    url: str
    expires_at: dt.datetime


class Store(Protocol):
    """What both kinds of store offer beyond Django's interface; see `deeds.stores`."""

    def put(self, name: str, content: bytes, *, file_name: str, replace: bool = False) -> bool: ...
    def get(self, name: str) -> bytes | None: ...
    def remove(self, name: str) -> None: ...
    def tag(self, name: str, retention: str) -> None: ...
    def address(self, name: str, *, file_name: str, expires_at: dt.datetime) -> str | None: ...
    def ping(self) -> None: ...
    def walk(self, folder: str = "") -> Iterator[StoredObject]: ...


def keep(deed: Deed, content: bytes, *, replace: bool = False) -> bool:
    """Stores the deed's PDF under `name_of(deed)`. The first one stays, unless it is to be replaced.

    False when another one is there: of an attempt that ended before it could complete the deed.
    Raises `stores.StoreUnavailable`, as all here do that reach for the storage.
    """
    name = name_of(deed)
    is_kept = _store().put(name, content, file_name=file_name(deed), replace=replace)
    if is_kept and deed.held_at is not None:
        mark_held(deed)
    return is_kept


def name_of(deed: Deed) -> str:
    """Made from the id alone, so that a deed never has two PDFs; folders of even size."""
    return f"{_FOLDER}/{deed.pk.hex[-2:]}/{deed.pk}.pdf"


def read(deed: Deed) -> bytes | None:
    """The PDF, or None when the storage has none."""
    return _store().get(deed.pdf_name or name_of(deed))


def remove(deed: Deed) -> None:
    """Deletes the PDF for good. One that is not there is no fault."""
    _store().remove(deed.pdf_name or name_of(deed))


def mark_held(deed: Deed) -> None:
    """Tells a storage that deletes by rules of its own to spare this PDF."""
    _store().tag(deed.pdf_name or name_of(deed), HOLD)


def mark_released(deed: Deed) -> None:
    _store().tag(deed.pdf_name or name_of(deed), EXPIRE)


def link_to(deed: Deed, *, now: dt.datetime) -> Link:
    """A fresh link to a completed deed's PDF, valid for PDF_LINK_SECONDS."""
    expires_at = (now + dt.timedelta(seconds=settings.PDF_LINK_SECONDS)).replace(microsecond=0)
    path = reverse("pdf-file", kwargs={"deed_id": deed.pk})
    signed = signed_links.sign(path, expires_at=int(expires_at.timestamp()))
    return Link(f"{settings.PUBLIC_BASE_URL}{signed}", expires_at)


def address_of(deed: Deed, *, now: dt.datetime, expires_at: dt.datetime) -> str | None:
    """The storage's own signed address, for where a link leads; None when we have to send the PDF.

    It works no longer than the link that leads there, and STORAGE_LINK_SECONDS at most.
    """
    latest = now + dt.timedelta(seconds=settings.STORAGE_LINK_SECONDS)
    return _store().address(
        deed.pdf_name, file_name=file_name(deed), expires_at=min(expires_at, latest).replace(microsecond=0)
    )


def walk() -> Iterator[StoredObject]:
    """Everything that lies where PDFs are stored, whatever it is."""
    return _store().walk(_FOLDER)


def remove_object(name: str) -> None:
    """Deletes what a walk found."""
    _store().remove(name)


def check() -> None:
    """Returns when the storage answers, and raises StoreUnavailable when it doesn't."""
    _store().ping()


def answers() -> bool:
    """Whether what it refused is to be blamed on that one object."""
    try:
        check()
    except StoreUnavailable:
        return False
    return True


def file_name(deed: Deed) -> str:
    """What a browser saves it as: harmless characters only."""
    order = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in deed.order_id)
    return f"{deed.deed_type}-deed-{order[:60]}.pdf"


def _store() -> Store:
    return cast("Store", storages["deeds"])
