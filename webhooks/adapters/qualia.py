"""Qualia: how it signs, and how its payload becomes an order."""

from typing import Any, Final

from deeds.reading import Reading
from webhooks.adapters import shapes

SIGNATURE_HEADER: Final = "X-Qualia-Signature"


def read(body: Any) -> Reading:
    """Raises Problem `validation_error`."""
    return shapes.read(body)
