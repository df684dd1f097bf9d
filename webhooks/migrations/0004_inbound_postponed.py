from django.db import migrations, models


class Migration(migrations.Migration):
    """Columns that are empty, so that no row is written, and that a process of the version before leaves out."""

    dependencies = [
        ("webhooks", "0003_inbound_retention"),
    ]

    operations = [
        migrations.AddField(
            model_name="inboundevent",
            name="not_before",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="inboundevent",
            name="waits_for",
            field=models.CharField(blank=True, db_default="", default="", max_length=40),
        ),
    ]
