"""A deed's timeline: each state that it came to, when, and why where that is not plain."""

import datetime as dt
from typing import Any

from django.db import models
from django.db.models import F, Func, Value

from partner_api.http.times import rfc3339

JsonObject = dict[str, Any]


def entry(status: str, now: dt.datetime, detail: str = "") -> JsonObject:
    one = {"status": str(status), "at": rfc3339(now)}
    return {**one, "detail": detail} if detail else one


def and_then(*entries: JsonObject) -> Func:
    """The timeline with more entries, appended by the database in the same statement."""
    return Func(
        F("timeline"),
        Value(list(entries), output_field=models.JSONField()),
        template="%(expressions)s",
        arg_joiner=" || ",
        output_field=models.JSONField(),
    )
