"""Where Django looks for this app's pages in the admin; each kind stands in a module of its own."""

from webhooks.admin import deliveries, endpoints, inbound, sources

__all__ = ["deliveries", "endpoints", "inbound", "sources"]
