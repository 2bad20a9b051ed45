#!/bin/sh
# Installs what `make up` and `make test` need beside Go: redis-server and postgres (the programs only; each run starts private
# servers of its own), and with the argument `test` also the browser that looks at the dashboard's pages. Does nothing and prints
# nothing when all are there.
set -eu

has_redis() {
    command -v redis-server >/dev/null 2>&1 || [ -n "${AFTERWRITE_REDIS_SERVER:-}" ]
}

# The same places as in internal/local/find.go.
has_postgres() {
    [ -n "${AFTERWRITE_POSTGRES_BIN:-}" ] && return 0
    for program in "$(command -v postgres || true)" \
        /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
        /opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres; do
        [ -n "$program" ] && [ -x "$program" ] && return 0
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Installing talks a lot: what it says is shown only if it fails.
apt() {
    log=$(mktemp)
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
}

missing=
has_redis || missing="$missing redis-server"
has_postgres || missing="$missing postgresql"
[ "${1:-}" != test ] || command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0

echo "setup: installing$missing"
# $missing holds package names only: it is meant to be split.
if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
        echo "setup: without sudo only root can do that: apt-get install$missing" >&2
        exit 1
    fi
    apt update || echo "setup: apt-get update failed; going on with the lists at hand" >&2
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends $missing
elif command -v brew >/dev/null 2>&1; then
    # shellcheck disable=SC2046
    brew install --quiet $(echo "$missing" | sed 's/redis-server/redis/; s/postgresql/postgresql@17/')
else
    echo "setup: neither apt-get nor brew is here; install these with your system's packages:$missing" >&2
    exit 1
fi

# A package that installs but is not found would only fail later, and less clearly.
if ! has_redis || ! has_postgres; then
    echo "setup: installed, but redis-server or postgres is still not found: set AFTERWRITE_REDIS_SERVER and AFTERWRITE_POSTGRES_BIN" >&2
    exit 1
fi
