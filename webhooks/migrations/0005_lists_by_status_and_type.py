from django.db import migrations, models

INDEXES = {
    "deliveries_by_status": "webhook_deliveries (partner_id, livemode, status, id DESC)",
    "events_by_type": "webhook_events (partner_id, livemode, type, id DESC)",
}


class Migration(migrations.Migration):
    """The indexes are made while the tables are written to."""

    atomic = False

    dependencies = [
        ("webhooks", "0004_inbound_postponed"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    [
                        # A run that was interrupted leaves an index that nothing uses.
                        f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
                        f"CREATE INDEX CONCURRENTLY {name} ON {columns}",
                    ],
                    f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
                )
                for name, columns in INDEXES.items()
            ],
            state_operations=[
                migrations.AddIndex(
                    model_name="delivery",
                    index=models.Index(
                        fields=["partner", "livemode", "status", "-id"], name="deliveries_by_status"
                    ),
                ),
                migrations.AddIndex(
                    model_name="event",
                    index=models.Index(fields=["partner", "livemode", "type", "-id"], name="events_by_type"),
                ),
            ],
        ),
    ]
