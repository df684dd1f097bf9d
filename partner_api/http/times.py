"""How times leave us: RFC 3339, in UTC, with a Z."""

import datetime as dt
from typing import overload


@overload
def rfc3339(moment: dt.datetime) -> str: ...
@overload
def rfc3339(moment: dt.datetime | None) -> str | None: ...
def rfc3339(moment: dt.datetime | None) -> str | None:
    """None stays None: it has not happened."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if moment else None
