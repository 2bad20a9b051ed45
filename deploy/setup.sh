#!/bin/sh
# Installs what `make up` and `make test` need beside Go: redis-server and postgres (the programs only; each run starts private
# servers of its own). `setup.sh test` adds the browser that looks at the dashboard's pages, `setup.sh promtool` promtool, which
# checks the metrics and alerts, and `setup.sh bench` what `make bench` needs: wrk, webdis, redis-benchmark and pgbench. Does
# nothing and prints nothing when all are there.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
'' | test | promtool | bench) ;;
*)
    echo "setup: it takes nothing, test, promtool or bench, not $1" >&2
    exit 2
    ;;
esac

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

# As has_postgres; the same places as in proof/bench/load/find.go.
has_pgbench() {
    for program in "${AFTERWRITE_POSTGRES_BIN:-}/pgbench" "$(command -v pgbench || true)" \
        /usr/lib/postgresql/*/bin/pgbench /usr/pgsql-*/bin/pgbench \
        /opt/homebrew/opt/postgresql*/bin/pgbench /usr/local/opt/postgresql*/bin/pgbench; do
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

has_promtool() {
    command -v promtool >/dev/null 2>&1 || [ -x .bin/promtool ]
}

# Debian's package prometheus would start a server, and another for the machine's own numbers. So it is not installed: promtool
# is taken out of it, into .bin.
install_promtool() {
    echo "setup: fetching promtool"
    if command -v apt-get >/dev/null 2>&1; then
        apt update || echo "setup: apt-get update failed; going on with the lists at hand" >&2
        unpacked=$(mktemp -d)
        (cd "$unpacked" && apt-get -q -o APT::Sandbox::User=root download prometheus >/dev/null && dpkg-deb -x prometheus_*.deb .)
        mkdir -p .bin
        cp "$unpacked/usr/bin/promtool" .bin/promtool
        rm -rf "$unpacked"
    elif command -v brew >/dev/null 2>&1; then
        brew install --quiet prometheus # starts nothing
    else
        echo "setup: neither apt-get nor brew is here; install promtool, which comes with Prometheus" >&2
        exit 1
    fi
}

if [ "${1:-}" = promtool ]; then
    has_promtool || install_promtool
    exit 0
fi

missing=
has_redis || missing="$missing redis-server"
has_postgres || missing="$missing postgresql"
if [ "${1:-}" = bench ]; then
    command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
    command -v webdis >/dev/null 2>&1 || missing="$missing webdis"
    command -v redis-benchmark >/dev/null 2>&1 || missing="$missing redis-tools"
    # The server's package has it; where there was a server without it, it is added.
    ! has_postgres || has_pgbench || missing="$missing postgresql"
fi
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
    brew install --quiet $(echo "$missing" | sed 's/redis-server/redis/; s/redis-tools/redis/; s/postgresql/postgresql@17/')
else
    echo "setup: neither apt-get nor brew is here; install these with your system's packages:$missing" >&2
    exit 1
fi

# A package that installs but is not found would only fail later, and less clearly.
if ! has_redis || ! has_postgres; then
    echo "setup: installed, but redis-server or postgres is still not found: set AFTERWRITE_REDIS_SERVER and AFTERWRITE_POSTGRES_BIN" >&2
    exit 1
fi
