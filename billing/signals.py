"""News of billing, sent inside the transaction that makes it true.

`quota_threshold_reached` and `quota_exceeded` carry `partner`, `quota`, `percent` and `period_start`;
the others carry `invoice`.
"""

from django.dispatch import Signal

quota_threshold_reached = Signal()
quota_exceeded = Signal()
invoice_finalized = Signal()
invoice_paid = Signal()
invoice_payment_failed = Signal()
