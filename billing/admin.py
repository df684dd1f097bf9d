"""Where Django looks for this app's part of the admin; each stands in a module of its own."""

from billing import analytics_admin

__all__ = ["analytics_admin"]
