"""Where Django looks for this app's models; each stands in a module of its own."""

from partner_api.http.models.kept_answer import KeptAnswer

__all__ = ["KeptAnswer"]
