"""Partners, keys, staff and the audit trail in the admin. Importing a module registers its pages."""

from keys.admin import api_keys, audit, partners, staff

__all__ = ["api_keys", "audit", "partners", "staff"]
