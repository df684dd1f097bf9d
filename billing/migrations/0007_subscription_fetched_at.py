import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0006_usage_months_by_function"),
    ]

    operations = [
        migrations.AddField(
            model_name="stripesubscription",
            name="fetched_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                default=django.utils.timezone.now,
                help_text="When Stripe was asked for what is shown.",
            ),
        ),
    ]
