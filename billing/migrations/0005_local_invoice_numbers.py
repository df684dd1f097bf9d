from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """The index of the constraint is made while the table is written to."""

    atomic = False

    dependencies = [
        ("billing", "0004_contract_cost_units"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    [
                        # A run that was interrupted leaves an index that holds for nothing.
                        "DROP INDEX CONCURRENTLY IF EXISTS one_local_invoice_for_each_number",
                        "CREATE UNIQUE INDEX CONCURRENTLY one_local_invoice_for_each_number"
                        " ON invoices (number) WHERE origin = 'local' AND NOT (number = '')",
                    ],
                    "DROP INDEX CONCURRENTLY IF EXISTS one_local_invoice_for_each_number",
                ),
            ],
            state_operations=[
                migrations.AddConstraint(
                    model_name="invoice",
                    constraint=models.UniqueConstraint(
                        condition=Q(origin="local") & ~Q(number=""),
                        fields=["number"],
                        name="one_local_invoice_for_each_number",
                    ),
                ),
            ],
        ),
    ]
