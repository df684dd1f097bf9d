from django.db import migrations, models


class Migration(migrations.Migration):
    """The index is made while the table is written to."""

    atomic = False

    dependencies = [
        ("webhooks", "0002_inbound_bodies_encrypted"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    [
                        # A run that was interrupted leaves an index that nothing uses.
                        "DROP INDEX CONCURRENTLY IF EXISTS inbound_with_body",
                        "CREATE INDEX CONCURRENTLY inbound_with_body"
                        " ON webhook_inbound_events (settled_at) WHERE body IS NOT NULL",
                    ],
                    "DROP INDEX CONCURRENTLY IF EXISTS inbound_with_body",
                ),
            ],
            state_operations=[
                migrations.AddIndex(
                    model_name="inboundevent",
                    index=models.Index(
                        condition=models.Q(("body__isnull", False)),
                        fields=["settled_at"],
                        name="inbound_with_body",
                    ),
                ),
            ],
        ),
    ]
