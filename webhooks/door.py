"""How often the open door may be knocked at: those who sign by their source, all others by their address.

Systems and people share an office's address. So what was not signed right counts against the address and
is refused the sooner, and what was signed right is never refused for it.
"""

import uuid
from typing import Any, Final

from django.conf import settings

from keys import gate
from keys.limits import refuse_too_many
from keys.rate_limit import Limit
from partner_api.http.client_address import counted_as
from partner_api.http.problems import Problem

# Refused before it was known that a source of ours has sent it. A signature of another time may be a
# captured one: that it is right proves nothing of who sends it.
_UNPROVEN: Final = frozenset({"not_found", "payload_too_large", "invalid_signature", "stale_signature"})


def count_refusal(request: Any, problem: Problem) -> None:
    """Raises Problem `rate_limited` in place of the refusal once there are too many from the address."""
    if problem.code in _UNPROVEN:
        limit = Limit(settings.FAILED_AUTH_PER_MINUTE, settings.FAILED_AUTH_BURST)
        refuse_too_many(gate.take(f"signature:{counted_as(request)}", limit), "signature")


def count_source(source_id: uuid.UUID) -> None:
    """Counts a request that the source has signed. Raises Problem `rate_limited`."""
    limit = Limit(settings.WEBHOOKS_SOURCE_PER_MINUTE, settings.WEBHOOKS_SOURCE_BURST)
    refuse_too_many(gate.take(f"source:{source_id}", limit), "source")
