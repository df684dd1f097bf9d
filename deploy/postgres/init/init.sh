#!/bin/sh
# Makes the roles when the database of deploy/compose.yml is made.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d partner_api \
  -v app_password="$APP_DB_PASSWORD" -v migration_password="$MIGRATION_DB_PASSWORD" \
  -v readonly_password="$READONLY_DB_PASSWORD" -f /etc/partner-api/roles.sql
