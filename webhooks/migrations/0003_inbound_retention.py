from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """The index is made while the table is written to."""

    atomic = False

    dependencies = [
        ("webhooks", "0002_inbound_bodies_encrypted"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="inboundevent",
            index=models.Index(
                condition=models.Q(("body__isnull", False)), fields=["settled_at"], name="inbound_with_body"
            ),
        ),
    ]
