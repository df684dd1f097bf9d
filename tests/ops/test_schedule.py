"""What beat asks for: it waits behind no deeds, and comes also where beat is replaced every day."""

import datetime as dt
from typing import Any

import pytest
from celery import current_app
from celery.schedules import crontab
from django.conf import settings

ENTRIES = sorted(settings.CELERY_BEAT_SCHEDULE.items())
# In the line of the deeds there would be none before a thousand of them.
LINES = {settings.UPKEEP_QUEUE, settings.WEBHOOK_QUEUE}


def line_of(task: str) -> str:
    return str(current_app.amqp.router.route({}, task)["queue"].name)


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_an_entry_names_a_task_and_waits_behind_no_deeds(name: str, entry: Any) -> None:
    current_app.loader.import_default_modules()
    assert entry["task"] in current_app.tasks
    assert line_of(entry["task"]) in LINES


def test_only_what_makes_deeds_is_in_their_lines() -> None:
    current_app.loader.import_default_modules()
    ours = {name for name in current_app.tasks if not name.startswith("celery.")}
    making = {f"deeds.tasks.{name}" for name in ("serve", "serve_bulk", "drain", "render")}
    assert {name for name in ours if line_of(name) not in LINES} == making


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_an_entry_is_due_before_beat_is_replaced(name: str, entry: Any) -> None:
    """An interval begins anew with each beat, whose schedule does not outlive its container."""
    is_by_the_clock = isinstance(entry["schedule"], crontab)
    assert is_by_the_clock or entry["schedule"] <= dt.timedelta(hours=1)
    assert 0 < entry["options"]["expires"] <= 12 * 3600
