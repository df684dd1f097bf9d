"""Where Django looks for this app's models; each stands in a module of its own."""

from keys.models.api_key import ApiKey
from keys.models.audit import AuditEntry, AuditHead
from keys.models.partner import Partner
from keys.models.second_factor import Authenticator, RecoveryCodes
from keys.models.setup import Setup

__all__ = ["ApiKey", "AuditEntry", "AuditHead", "Authenticator", "Partner", "RecoveryCodes", "Setup"]
