"""Turns the other apps' news into events. A receiver runs in the sender's transaction: both or neither."""

from typing import Any

from django.conf import settings
from django.dispatch import receiver

from billing import signals as billing
from deeds.models import Deed
from deeds.signals import deed_settled
from keys import signals as keys
from keys.models import ApiKey, Partner
from webhooks.event_types import DeedNews, InvoiceNews, KeyEndNews, KeyNews, QuotaNews
from webhooks.outbox import publish


@receiver(deed_settled)
def tell_of_deed(deed: Deed, **_: Any) -> None:
    url = f"{settings.PUBLIC_BASE_URL}/v2/deeds/{deed.pk}"
    news = DeedNews.model_validate(
        {
            "deed": deed.pk,
            "order_id": deed.order_id,
            "deed_type": deed.deed_type,
            "status": deed.status,
            "failure_code": deed.failure_code or None,
            "url": url,
            "pdf_url": f"{url}/pdf" if deed.status == Deed.Status.COMPLETED else None,
        }
    )
    publish(f"deed.{deed.status}", news, partner=deed.partner, livemode=deed.livemode)


@receiver(billing.quota_threshold_reached)
def tell_of_threshold(**facts: Any) -> None:
    _tell_of_quota("quota.threshold_reached", **facts)


@receiver(billing.quota_exceeded)
def tell_of_exceeded(**facts: Any) -> None:
    _tell_of_quota("quota.exceeded", **facts)


@receiver(billing.invoice_finalized)
def tell_of_finalized(invoice: Any, **_: Any) -> None:
    _tell_of_invoice("invoice.finalized", invoice)


@receiver(billing.invoice_paid)
def tell_of_paid(invoice: Any, **_: Any) -> None:
    _tell_of_invoice("invoice.paid", invoice)


@receiver(billing.invoice_payment_failed)
def tell_of_payment_failed(invoice: Any, **_: Any) -> None:
    _tell_of_invoice("invoice.payment_failed", invoice)


@receiver(keys.key_expiring)
def tell_of_expiring(key: ApiKey, **_: Any) -> None:
    due_at = key.rotation_due_at()
    news = KeyEndNews(key=key.pk, prefix=key.prefix, expires_at=key.expires_at, rotation_due_at=due_at)
    publish("key.expiring", news, partner=key.partner, livemode=key.livemode)


@receiver(keys.key_rotated)
def tell_of_rotated(key: ApiKey, **_: Any) -> None:
    _tell_of_key("key.rotated", key)


@receiver(keys.key_revoked)
def tell_of_revoked(key: ApiKey, **_: Any) -> None:
    _tell_of_key("key.revoked", key)


def _tell_of_quota(
    name: str, partner: Partner, quota: Any, percent: int, period_start: Any, **_: Any
) -> None:
    start = period_start.date() if hasattr(period_start, "date") else period_start
    url = f"{settings.PUBLIC_BASE_URL}/v2/usage"
    news = QuotaNews(quota=str(quota), percent=int(percent), period_start=start, url=url)
    # Quotas count live orders.
    publish(name, news, partner=partner, livemode=True)


def _tell_of_invoice(name: str, invoice: Any) -> None:
    url = f"{settings.PUBLIC_BASE_URL}/v2/invoices/{invoice.pk}"
    publish(name, InvoiceNews(invoice=str(invoice.pk), url=url), partner=invoice.partner, livemode=True)


def _tell_of_key(name: str, key: ApiKey) -> None:
    news = KeyNews(key=key.pk, prefix=key.prefix, expires_at=key.expires_at)
    publish(name, news, partner=key.partner, livemode=key.livemode)
