#!/bin/sh
# For docker-entrypoint-initdb.d of the postgres image, which runs it when it makes the database: the roles, each with the
# password of its URL in /run/secrets, and their rights on all that the migrations will make.
set -eu
sql() { psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" "$@"; }
sql --file /deploy/postgres/roles.sql
for secret in OWNER_DATABASE_URL WORKER_DATABASE_URL EXPORTER_DATABASE_URL; do
  login="$(sed 's|^[a-z]*://||; s|@.*||' "/run/secrets/$secret")"
  # On standard input: as an argument every user of the host could read the password.
  echo "ALTER ROLE \"${login%%:*}\" PASSWORD '${login#*:}'" | sql --file -
done
{ echo 'SET ROLE token_worker_owner;'; cat /deploy/postgres/grants.sql; } | sql --file -
