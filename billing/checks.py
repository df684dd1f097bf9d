"""What billing refuses to start with, in production and elsewhere."""

from typing import Any

from django.conf import settings
from django.core import checks

from billing import cost_units


@checks.register(checks.Tags.security)
def cost_units_are_known(app_configs: Any, **_: Any) -> list[checks.CheckMessage]:
    """`partner_api.E063` for each entry of USAGE_COST_UNITS that no request could be costed by."""
    return [
        checks.Error(f"USAGE_COST_UNITS: {problem}", hint="See docs/usage.md.", id="partner_api.E063")
        for problem in cost_units.problems_of(settings.USAGE_COST_UNITS)
    ]
