"""How credentials are refused, whatever they are: counted by code and by address, with the header that says
what is wanted. Who guesses, at a key, a token or the setup secret, is answered 429 before long.
"""

from typing import Any, Final, NoReturn

from keys import limits, metrics
from partner_api.http.problems import Problem

PARTNERS: Final = 'Bearer realm="partner-api"'
BACK_OFFICE: Final = 'Bearer realm="admin-api"'


def refuse(request: Any, code: str, detail: str, *, challenge: str) -> NoReturn:
    """Raises Problem: `code`, or `rate_limited` once the address was refused too often."""
    metrics.auth_failures.labels(code).inc()
    limits.count_failure(request)
    raise Problem(code, detail, headers={"WWW-Authenticate": challenge})
