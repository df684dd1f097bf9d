"""Writes the log of downloads, before the link or the PDF leaves: what can't be logged is not given."""

from typing import Any

from deeds.models import Deed, DeedDownload
from partner_api.http import request_id
from partner_api.http.client_address import address_of

_LONGEST_RANGE = 100


def record(request: Any, deed: Deed, kind: str, *, who: str = "", status: int) -> None:
    """`status` is the answer's: 200 with the PDF, 302 with an address of it."""
    DeedDownload.objects.create(
        deed=deed,
        partner_id=deed.partner_id,
        kind=kind,
        who=who,
        address=address_of(request),
        request_id=request_id.of(request),
        status=status,
        asked_range=request.headers.get("Range", "")[:_LONGEST_RANGE],
    )
