"""Where Django looks for this app's models; each stands in a module of its own."""

from partner_api.ops.models.incident import Incident

__all__ = ["Incident"]
