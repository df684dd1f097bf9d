from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0003_stripe"),
        ("keys", "0004_staff"),
    ]

    operations = [
        migrations.AddField(
            model_name="contract",
            name="cost_units",
            field=models.JSONField(
                blank=True,
                db_default={},
                default=dict,
                help_text='Units of deed types and requests, such as {"grant": 12, "POST /v2/deeds/batch": 5}. '
                "What is not named costs what it costs without a contract.",
            ),
        ),
    ]
