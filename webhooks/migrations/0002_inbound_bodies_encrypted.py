import partner_api.ops.vault
from cryptography.fernet import InvalidToken
from django.db import migrations
from partner_api import encryption

BATCH = 100


def encrypt_all(apps, schema_editor):
    _each_row(schema_editor.connection, _sealed)


def decrypt_all(apps, schema_editor):
    _each_row(schema_editor.connection, _opened)


def _sealed(content):
    """What is encrypted already, by a run that was interrupted or by a process of the new version, stays."""
    return encryption.encrypt_bytes(content) if _opened(content) is content else content


def _opened(content):
    try:
        return encryption.decrypt_bytes(content)
    except InvalidToken:
        return content


def _each_row(connection, change):
    """In batches, each row by itself and only as it was read: events come in meanwhile."""
    last = "00000000-0000-0000-0000-000000000000"
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT id, body, corrected_body FROM webhook_inbound_events WHERE id > %s ORDER BY id LIMIT %s",
                [last, BATCH],
            )
            rows = cursor.fetchall()
            for pk, body, corrected in rows:
                if body is not None:
                    cursor.execute(
                        "UPDATE webhook_inbound_events SET body = %s WHERE id = %s AND body = %s",
                        [change(bytes(body)), pk, body],
                    )
                if corrected:
                    cursor.execute(
                        "UPDATE webhook_inbound_events SET corrected_body = %s WHERE id = %s AND corrected_body = %s",
                        [change(corrected.encode()).decode(), pk, corrected],
                    )
            if not rows:
                return
            last = rows[-1][0]


class Migration(migrations.Migration):
    """Bodies of inbound events are encrypted from here on, and those that are there with them."""

    atomic = False

    dependencies = [
        ("webhooks", "0001_events_endpoints_and_sources"),
    ]

    operations = [
        migrations.AlterField(
            model_name="inboundevent",
            name="body",
            field=partner_api.ops.vault.EncryptedBinaryField(null=True),
        ),
        migrations.AlterField(
            model_name="inboundevent",
            name="corrected_body",
            field=partner_api.ops.vault.EncryptedTextField(blank=True),
        ),
        migrations.RunPython(encrypt_all, decrypt_all),
    ]
