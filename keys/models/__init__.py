"""Where Django looks for this app's models; each stands in a module of its own."""

from keys.models.api_key import ApiKey
from keys.models.audit import AuditEntry
from keys.models.partner import Partner

__all__ = ["ApiKey", "AuditEntry", "Partner"]
