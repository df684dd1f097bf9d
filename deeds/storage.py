"""Where PDFs are kept, and the only place that makes links to them."""

import datetime as dt
from dataclasses import dataclass

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages
from django.urls import reverse

from deeds.models import Deed
from partner_api.http import signed_links


@dataclass(frozen=True)
class Link:
    """A URL that works without a key until it expires."""

    url: str
    expires_at: dt.datetime


def store(deed: Deed, content: bytes) -> str:
    """Keeps the deed's PDF and returns its name. A second store of a deed replaces the first."""
    name = name_of(deed)
    saved = _storage().save(name, ContentFile(content))
    if saved != name:
        message = f"the storage kept {name} as {saved}; it must be one that overwrites"
        raise RuntimeError(message)
    return name


def name_of(deed: Deed) -> str:
    """Made from the id alone, so that a deed never has two PDFs; folders of even size."""
    return f"deeds/{deed.pk.hex[-2:]}/{deed.pk}.pdf"


def open_pdf(deed: Deed) -> "File[bytes]":
    """Raises FileNotFoundError when the storage has lost it."""
    return _storage().open(deed.pdf_name, "rb")


def link_to(deed: Deed, *, now: dt.datetime) -> Link:
    """A fresh link to a completed deed's PDF, valid for PDF_LINK_SECONDS."""
    expires_at = (now + dt.timedelta(seconds=settings.PDF_LINK_SECONDS)).replace(microsecond=0)
    path = reverse("pdf-file", kwargs={"deed_id": deed.pk})
    signed = signed_links.sign(path, expires_at=int(expires_at.timestamp()))
    return Link(f"{settings.PUBLIC_BASE_URL}{signed}", expires_at)


def check() -> None:
    """Returns when the storage answers; raises what its client raises when it doesn't."""
    _storage().exists("readyz")


def file_name(deed: Deed) -> str:
    """What a browser saves it as: harmless characters only."""
    order = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in deed.order_id)
    return f"{deed.deed_type}-deed-{order[:60]}.pdf"


def _storage() -> Storage:
    return storages["deeds"]
