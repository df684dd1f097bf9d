"""Months of the request log are made and dropped by two functions of the tables' owner.

The app's role changes rows and no table (deploy/postgres/roles.sql), yet a worker has to make next month.
It may call these, which touch nothing but months of api_usage.
"""

from django.db import migrations

SIGNATURES = "make_usage_month(date), drop_usage_month(date)"

FUNCTIONS = f"""
CREATE FUNCTION make_usage_month(first_day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  month text := 'api_usage_' || to_char(first_day, 'YYYY_MM');
  starts timestamptz := first_day::timestamp AT TIME ZONE 'UTC';
  ends timestamptz := (first_day + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
  IF first_day IS NULL OR extract(day FROM first_day) <> 1 OR extract(year FROM first_day) NOT BETWEEN 2020 AND 2200 THEN
    RAISE EXCEPTION 'no month of the request log begins on %', first_day USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- Another process may make the same one; and no row may slip into the default meanwhile.
  LOCK TABLE api_usage, api_usage_default IN SHARE ROW EXCLUSIVE MODE;
  IF to_regclass(month) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE api_usage INCLUDING ALL)', month);
  EXECUTE format(
    'WITH moved AS (DELETE FROM api_usage_default WHERE at >= $1 AND at < $2 RETURNING *)'
    ' INSERT INTO %I SELECT * FROM moved', month) USING starts, ends;
  EXECUTE format('ALTER TABLE api_usage ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', month, starts, ends);
  RETURN true;
END $$;

CREATE FUNCTION drop_usage_month(first_day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  month text := 'api_usage_' || to_char(first_day, 'YYYY_MM');
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_inherits WHERE inhparent = 'api_usage'::regclass AND inhrelid = to_regclass(month)
  ) THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE %I', month);
  RETURN true;
END $$;

REVOKE ALL ON FUNCTION {SIGNATURES} FROM PUBLIC;
-- Who may delete the log's rows one by one may do so by the month.
DO $$
DECLARE
  whose regrole;
BEGIN
  FOR whose IN
    SELECT DISTINCT grantee::regrole FROM pg_class, aclexplode(relacl)
    WHERE pg_class.oid = 'api_usage'::regclass AND privilege_type = 'DELETE' AND grantee NOT IN (0, relowner)
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION {SIGNATURES} TO %s', whose);
  END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_local_invoice_numbers"),
    ]

    operations = [
        migrations.RunSQL(FUNCTIONS, f"DROP FUNCTION {SIGNATURES}"),
    ]
