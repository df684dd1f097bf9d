"""Where Django looks for this app's models; each stands in a module of its own."""

from billing.models.rollup import Analytics, Level, UsageDaily, UsageHourly
from billing.models.usage import ApiUsage

__all__ = ["Analytics", "ApiUsage", "Level", "UsageDaily", "UsageHourly"]
