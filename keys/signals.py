"""News of keys, sent inside the transaction that makes it true; each carries `key`."""

from django.dispatch import Signal

key_expiring = Signal()
key_rotated = Signal()
key_revoked = Signal()
