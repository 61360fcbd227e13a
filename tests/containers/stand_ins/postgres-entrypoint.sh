#!/bin/bash
# Makes the database at the first start, from the same variables as the official image, and runs what it is asked to run.
set -euo pipefail
[ "${1:-}" = postgres ] || exec "$@"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  initdb --username="${POSTGRES_USER:-postgres}" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 \
    --auth-local=trust --encoding=UTF8 --locale=C.UTF-8
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --silent --options="-c listen_addresses=''" start
  admin=(psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "${POSTGRES_USER:-postgres}")
  database="${POSTGRES_DB:-${POSTGRES_USER:-postgres}}"
  [ "$database" = postgres ] || "${admin[@]}" --dbname postgres -c "CREATE DATABASE \"$database\""
  for file in /docker-entrypoint-initdb.d/*; do
    case "$file" in
      *.sql) "${admin[@]}" --dbname "$database" --file "$file" ;;
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
    esac
  done
  pg_ctl --wait --mode=fast stop
fi
exec postgres -c listen_addresses='*'
