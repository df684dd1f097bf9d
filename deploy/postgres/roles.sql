-- Three roles: the app's, which changes rows and no table; the migrations', which owns the tables; and a reader's for
-- reports. Run once by a superuser, in the product's database, before the first migration:
--   psql -v app_password=… -v migration_password=… -v readonly_password=… -f roles.sql
-- Run again it changes the passwords, and nothing else.
\set ON_ERROR_STOP on
BEGIN;
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY['partner_api_app', 'partner_api_migration', 'partner_api_readonly']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE partner_api_app PASSWORD :'app_password';
ALTER ROLE partner_api_migration PASSWORD :'migration_password';
ALTER ROLE partner_api_readonly PASSWORD :'readonly_password';

SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO partner_api_app', current_database()) \gexec
SELECT format('GRANT CONNECT, TEMPORARY, CREATE ON DATABASE %I TO partner_api_migration', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO partner_api_readonly', current_database()) \gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO partner_api_migration;
GRANT USAGE ON SCHEMA public TO partner_api_app, partner_api_readonly;

-- What migrations make from now on, the others may use.
ALTER DEFAULT PRIVILEGES FOR ROLE partner_api_migration IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO partner_api_app;
ALTER DEFAULT PRIVILEGES FOR ROLE partner_api_migration IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO partner_api_app;
ALTER DEFAULT PRIVILEGES FOR ROLE partner_api_migration IN SCHEMA public
  GRANT SELECT ON TABLES TO partner_api_readonly;
-- Functions that do for the app what only the tables' owner may (months of the request log) are for the app alone.
ALTER DEFAULT PRIVILEGES FOR ROLE partner_api_migration REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE partner_api_migration IN SCHEMA public
  GRANT EXECUTE ON FUNCTIONS TO partner_api_app;

-- A report that runs away holds up nobody.
ALTER ROLE partner_api_readonly SET statement_timeout = '60s';
ALTER ROLE partner_api_readonly SET default_transaction_read_only = on;
COMMIT;
