"""Celery's side of billing. Each task looks at the rows first, and is safe to run twice and at once."""

from typing import Final

from celery import shared_task
from django.utils import timezone

from billing import (
    draining,
    invoice_mirror,
    invoicing,
    provisioning,
    reconciling,
    retention,
    stripe_client,
    stripe_events,
    syncing,
)
from keys import audit
from partner_api.slots import slot

# Each calls Stripe again and again, for minutes where it answers slowly. Beat sends the next one meanwhile,
# and all workers would end up waiting for Stripe: one does each kind of work, and a further one goes home.
_SYNCING: Final = 0x7374726B  # "strk"
_FOLLOWING: Final = 0x7374726C


@shared_task
def drain_usage() -> None:
    """Stores what web processes that share our folder left behind."""
    draining.drain()


@shared_task
def keep_partitions() -> None:
    """Makes the months to come, and drops what is past its retention."""
    retention.keep()
    retention.forget_stripe_events()


@shared_task
def draft_invoices() -> None:
    """Closes the periods that have ended."""
    invoicing.close_ended(now=timezone.now())


@shared_task
def sync() -> None:
    """Sends the ledger's pending entries to Stripe."""
    with slot(_SYNCING, of=1) as is_ours:
        if is_ours:
            syncing.sync()


@shared_task
def process_stripe_event(event_id: str) -> None:
    """Acts on a webhook that was stored, unless another worker is at it: then beat's task does."""
    with slot(_FOLLOWING, of=1) as is_ours:
        if is_ours:
            stripe_events.process(event_id)


@shared_task
def process_stripe_events() -> None:
    """Those whose message was lost, or that had to wait."""
    with slot(_FOLLOWING, of=1) as is_ours:
        if is_ours:
            stripe_events.process_waiting()


@shared_task
def release_invoices() -> None:
    """Finalizes Stripe's drafts of which everything has arrived."""
    if not stripe_client.is_configured():
        return
    with slot(_FOLLOWING, of=1) as is_ours:
        if is_ours:
            invoice_mirror.release_held()


@shared_task
def provision_due() -> None:
    """Brings contract versions to Stripe when their day has come, for partners that are there."""
    if not stripe_client.is_configured():
        return
    actor = audit.Actor.system("billing.tasks.provision_due")
    for contract in provisioning.due(timezone.now()):
        provisioning.provision_quietly(contract, actor)


@shared_task
def reconcile() -> None:
    """Compares the books of the last weeks."""
    reconciling.nightly()
