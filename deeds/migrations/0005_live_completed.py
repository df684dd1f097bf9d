from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """For the question which deeds were completed in a period, at any number of deeds. Made without a lock."""

    atomic = False

    dependencies = [
        ("deeds", "0004_inbound_source"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="deed",
            index=models.Index(
                fields=["completed_at"],
                condition=models.Q(("livemode", True), ("status", "completed")),
                name="deeds_live_completed",
            ),
        ),
    ]
