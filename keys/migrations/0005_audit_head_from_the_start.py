from django.db import migrations

from keys import audit


def begin(apps, schema_editor):
    """An empty trail has a head too, so that one without a head is a trail from which it was taken."""
    heads, entries = (apps.get_model("keys", name).objects for name in ("AuditHead", "AuditEntry"))
    audit.lock()
    if heads.exists() or entries.exists():
        return
    head = apps.get_model("keys", "AuditHead")(count=0, last_id=0, hash=audit.GENESIS)
    head.signature = audit.signature_of(head)
    head.save(force_insert=True)


class Migration(migrations.Migration):

    dependencies = [
        ("keys", "0004_staff"),
    ]

    operations = [
        migrations.RunPython(begin, migrations.RunPython.noop),
    ]
