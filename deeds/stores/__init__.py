"""What PDFs can be kept in: a folder or an S3 bucket, by the setting STORAGE_BACKEND.

Both keep the first PDF that is put under a name, whole or not at all, and say the same of it. Django's
own storage interface is there as well; what it lacks is here.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final

# What an object's tag `retention` can say. A lifecycle rule deletes those that expire, and only those.
RETENTION_TAG: Final = "retention"
EXPIRE: Final = "expire"
HOLD: Final = "hold"


@dataclass(frozen=True)
class StoredObject:
    """One file of the store, as a listing shows it."""

    name: str
    bytes: int
    modified_at: dt.datetime


class StoreUnavailable(Exception):
    """The store can't be reached, is full or refuses us. The message holds no name and no secret."""
