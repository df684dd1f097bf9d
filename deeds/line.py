"""Whose deed is made next, among all that are queued and due.

Each partner and mode has a line. The partner that was served the longest ago is next; of its lines the
live one goes before the test one, and in a line the deed that has been due the longest. So a partner's
ten thousand orders delay another's one by no more than what is being made at that moment.

The lines are found by hopping through an index from one to the next, so that a claim costs the same
however many deeds are queued.
"""

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from typing import Any, Final

import uuid_utils.compat
from django.conf import settings
from django.db import transaction

from deeds.models import Deed, timeline

# Why a deed was put back by no fault of its own: it need not wait once the renderer is there again.
OUTAGE_CODES: Final = ("main_api_unavailable", "main_api_timeout", "main_api_busy")
# A probe takes what is queued though it is not due.
_PROBE_AHEAD: Final = dt.timedelta(days=2)

# A deed that a claim under way has locked is passed over, and so may be a whole line.
_NEXT_SQL: Final = """
WITH RECURSIVE lines (livemode, partner_id) AS (
    (SELECT livemode, partner_id FROM external_deeds
      WHERE status = 'queued' AND is_bulk = %(is_bulk)s
      ORDER BY livemode, partner_id LIMIT 1)
  UNION ALL
    SELECT following.livemode, following.partner_id
      FROM lines CROSS JOIN LATERAL (
        SELECT livemode, partner_id FROM external_deeds
         WHERE status = 'queued' AND is_bulk = %(is_bulk)s
           AND (livemode, partner_id) > (lines.livemode, lines.partner_id)
         ORDER BY livemode, partner_id LIMIT 1) AS following
), in_turn AS (
    SELECT lines.livemode, lines.partner_id
      FROM lines LEFT JOIN LATERAL (
        SELECT claimed_at FROM external_deeds
         WHERE partner_id = lines.partner_id AND claimed_at IS NOT NULL
         ORDER BY claimed_at DESC LIMIT 1) AS served ON true
     WHERE lines.livemode = ANY(%(modes)s)
     ORDER BY served.claimed_at NULLS FIRST, lines.livemode DESC
)
SELECT deed.id
  FROM in_turn CROSS JOIN LATERAL (
    SELECT id FROM external_deeds
     WHERE status = 'queued' AND is_bulk = %(is_bulk)s
       AND livemode = in_turn.livemode AND partner_id = in_turn.partner_id
       AND next_attempt_at <= %(due)s AND (NOT %(is_untried)s OR put_back_for = '')
     ORDER BY next_attempt_at LIMIT 1
       FOR UPDATE SKIP LOCKED) AS deed
 LIMIT 1
"""
# A claim need not reach the disk: a Postgres that crashed forgets the last of them, and the deed is in the
# line again, as if its worker had died.
CLAIM_SQL: Final = f"""
UPDATE external_deeds
   SET status = 'rendering', lease = %(lease)s, lease_expires_at = %(lease_expires_at)s,
       claimed_at = %(now)s, attempts = attempts + %(counts)s, timeline = timeline || %(entry)s::jsonb
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS relaxed
 WHERE id = ({_NEXT_SQL})
RETURNING external_deeds.*
"""  # noqa: S608 - two constants


def claim_next(
    *,
    is_bulk: bool,
    modes: Sequence[bool],
    now: dt.datetime,
    is_probe: bool = False,
    is_untried: bool = False,
) -> tuple[Deed, uuid.UUID] | None:
    """The deed whose turn it is, and a lease on it; None when none of these modes is due.

    A probe takes what is first in line even before it is due, is not counted as an attempt, and leaves no
    entry in the timeline as long as it only finds the renderer away. An untried one was never put back.
    """
    if not modes:
        return None
    lease = uuid_utils.compat.uuid7()
    parameters = claim_parameters(
        is_bulk=is_bulk, modes=modes, now=now, lease=lease, is_probe=is_probe, is_untried=is_untried
    )
    deed = next(iter(Deed.objects.raw(CLAIM_SQL, parameters)), None)
    return (deed, lease) if deed is not None else None


def claim_parameters(
    *,
    is_bulk: bool,
    modes: Sequence[bool],
    now: dt.datetime,
    lease: uuid.UUID,
    is_probe: bool = False,
    is_untried: bool = False,
) -> dict[str, Any]:
    return {
        "is_untried": is_untried,
        "is_bulk": is_bulk,
        "modes": list(modes),
        "due": now + _PROBE_AHEAD if is_probe else now,
        "now": now,
        "lease": lease,
        "lease_expires_at": now + dt.timedelta(seconds=settings.DEED_LEASE_SECONDS),
        "counts": 0 if is_probe else 1,
        "entry": json.dumps([] if is_probe else [timeline.entry(Deed.Status.RENDERING, now)]),
    }


def release(*, livemode: bool, now: dt.datetime) -> int:
    """Makes those due that wait because the renderer was away. How many."""
    waiting = Deed.objects.filter(
        status=Deed.Status.QUEUED,
        is_bulk__in=(False, True),
        livemode=livemode,
        put_back_for__in=OUTAGE_CODES,
        next_attempt_at__gt=now,
    )
    return waiting.update(next_attempt_at=now, hinted_at=None)


def is_used(*, livemode: bool) -> bool:
    """Whether any deed of the mode is queued, due or not."""
    queued = Deed.objects.filter(status=Deed.Status.QUEUED, is_bulk__in=(False, True), livemode=livemode)
    return queued.exists()


def take_up_a_hint(*, livemode: bool, is_bulk: bool, now: dt.datetime) -> uuid.UUID | None:
    """The id of a deed that is due and has no message under way, now marked as if it had one."""
    with transaction.atomic():
        unhinted = Deed.objects.claimable(now).filter(livemode=livemode, is_bulk=is_bulk, hinted_at=None)
        deed_id = (
            unhinted.order_by("next_attempt_at")
            .select_for_update(skip_locked=True)
            .values_list("pk", flat=True)
            .first()
        )
        if deed_id is not None:
            Deed.objects.filter(pk=deed_id).update(hinted_at=now)
    return deed_id


def forget_a_hint(*, is_bulk: bool, modes: Sequence[bool]) -> None:
    """A message was used up and no deed of these lines was made by it; so one of them has none any more.

    Which one does not matter, as any message serves any deed: the sweeper will send as many as are marked.
    """
    with transaction.atomic():
        hinted = Deed.objects.filter(
            status=Deed.Status.QUEUED, is_bulk=is_bulk, livemode__in=modes, hinted_at__isnull=False
        )
        one = (
            hinted.order_by("hinted_at").select_for_update(skip_locked=True).values_list("pk", flat=True)[:1]
        )
        Deed.objects.filter(pk__in=list(one)).update(hinted_at=None)
