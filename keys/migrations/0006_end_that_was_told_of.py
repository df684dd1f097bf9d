import django.core.validators
from django.db import migrations, models

# Of keys that partners were told of before: as keys.warning chose it then.
TOLD_BEFORE = """
UPDATE api_keys SET warned_for = CASE
  WHEN expires_at <= rotation_warned_at + interval '14 days' THEN expires_at
  ELSE api_keys.created_at + key_max_age_days * interval '1 day' END
FROM keys_partner WHERE keys_partner.id = partner_id AND rotation_warned_at IS NOT NULL
"""


class Migration(migrations.Migration):

    dependencies = [
        ("keys", "0005_audit_head_from_the_start"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="warned_for",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="partner",
            name="key_max_age_days",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Keys older than this are due for rotation; empty for no policy.",
                null=True,
                validators=[django.core.validators.MaxValueValidator(36500)],
            ),
        ),
        migrations.RunSQL(TOLD_BEFORE, migrations.RunSQL.noop),
    ]
