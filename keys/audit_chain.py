"""Reads the audit trail's chain from its first entry to its head, and says where it is broken.

What can be found: an entry that was edited, removed or put in, and entries removed at the end, because
the head counts them and is signed. What can't, from the database alone: that entries *and* head were set
back together to an earlier state. For that, compare with a head noted elsewhere (`seen`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import transaction
from django.db.models import QuerySet

from keys import audit
from keys.models import AuditEntry, AuditHead

_CHUNK = 2000


@dataclass
class Chain:
    """What was read so far. `fault` names the first entry that does not fit."""

    count: int = 0
    last_id: int = 0
    hash: str = audit.GENESIS
    fault: str | None = None
    seen: dict[int, str] = field(default_factory=dict)

    def follow(self, entries: QuerySet[AuditEntry]) -> None:
        """Goes on with `entries`, by id, up to the first fault."""
        for entry in in_order(entries):
            self.fault = self.fault or self._fault_of(entry)
            if self.fault:
                return
            self.count, self.last_id, self.hash = self.count + 1, entry.pk, entry.hash
            if self.count in self.seen and self.seen[self.count] != self.hash:
                self.fault = f"entry {entry.pk}: it is number {self.count}, and not the one noted before."
                return

    def _fault_of(self, entry: AuditEntry) -> str | None:
        if audit.hash_of(entry) != entry.hash:
            return f"entry {entry.pk}: it was edited; its hash is not that of what it says."
        if entry.previous_hash != self.hash:
            return (
                f"entry {entry.pk}: it does not follow entry {self.last_id}; "
                "one between them was removed, or one of them was put in."
            )
        return None


def in_order(entries: QuerySet[AuditEntry]) -> Iterator[AuditEntry]:
    """By id, with some thousands in memory, and without a cursor that stays open."""
    chunk = list(entries.order_by("id")[:_CHUNK])
    while chunk:
        yield from chunk
        chunk = list(entries.order_by("id").filter(pk__gt=chunk[-1].pk)[:_CHUNK])


def verify(seen: dict[int, str] | None = None) -> Chain:
    """Reads all entries. `seen` maps counts to hashes that were noted before (see `AuditHead.__str__`)."""
    chain = Chain(seen=dict(seen or {}))
    head = AuditHead.objects.first()
    # Without a lower bound: what was put in before the first entry is read too.
    chain.follow(AuditEntry.objects.filter(pk__lte=head.last_id if head else 0))
    with transaction.atomic():
        # What was added in the meantime; from here on nothing is added until we have looked at the head.
        audit.lock()
        head = AuditHead.objects.first()
        chain.follow(AuditEntry.objects.filter(pk__gt=chain.last_id))
    chain.fault = chain.fault or _fault_of_head(chain, head)
    return chain


def _fault_of_head(chain: Chain, head: AuditHead | None) -> str | None:
    if head is None:
        return "the head, which is missing: the last entries may be, or all."
    if not audit.is_signed(head):
        return "the head: it was edited, or was missing when an entry was written; its signature is not ours."
    if chain.last_id > head.last_id:
        return (
            f"entry {chain.last_id}: the chain goes on after the head, entry {head.last_id}; it was put in."
        )
    if (head.count, head.last_id, head.hash) != (chain.count, chain.last_id, chain.hash):
        return (
            f"entry {head.last_id}: the chain ends at entry {chain.last_id} after {chain.count} entries, "
            f"but {head.count} were written; the last ones were removed."
        )
    return _shortfall(chain)


def _shortfall(chain: Chain) -> str | None:
    expected = max(chain.seen, default=0)
    if chain.count < expected:
        return f"there were {expected} entries before, and now {chain.count}: entries and head were set back."
    return None
