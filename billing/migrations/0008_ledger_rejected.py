from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """What Stripe refused is looked for over the whole ledger; it is made while the table is written to."""

    atomic = False

    dependencies = [
        ("billing", "0007_subscription_fetched_at"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    [
                        # A run that was interrupted leaves an index that holds for nothing.
                        "DROP INDEX CONCURRENTLY IF EXISTS ledger_rejected",
                        "CREATE INDEX CONCURRENTLY ledger_rejected"
                        " ON ledger_entries (partner_id) WHERE sync_state = 'rejected'",
                    ],
                    "DROP INDEX CONCURRENTLY IF EXISTS ledger_rejected",
                ),
            ],
            state_operations=[
                migrations.AddIndex(
                    model_name="ledgerentry",
                    index=models.Index(
                        condition=Q(sync_state="rejected"), fields=["partner"], name="ledger_rejected"
                    ),
                ),
            ],
        ),
    ]
