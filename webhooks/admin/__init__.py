"""Where Django looks for this app's pages in the admin; each kind stands in a module of its own."""

from webhooks.admin import inbound, outbound, sources

__all__ = ["inbound", "outbound", "sources"]
