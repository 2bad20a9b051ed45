#!/bin/sh
# Installs what `make up` and `make test` need besides Go: redis-server and postgres (only the programs; each run starts private
# servers). `setup.sh clients` adds curl, python3 and node for the programs of docs/clients.md, `setup.sh test` adds these, the
# browser for the tests of the dashboard, and redis-cli, npm and the packages of proof/clients, `setup.sh promtool` adds promtool, which checks metrics
# and alerts, and `setup.sh bench` adds wrk, webdis, redis-benchmark and pgbench for `make bench`. If everything is installed, it
# does nothing and prints nothing.
set -eu
cd "$(dirname "$0")/.."

case "${1:-}" in
'' | test | clients | promtool | bench) ;;
*)
    echo "setup: unknown argument $1: use test, clients, promtool, bench, or none" >&2
    exit 2
    ;;
esac

has_redis() {
    command -v redis-server >/dev/null 2>&1 || [ -n "${AFTERWRITE_REDIS_SERVER:-}" ]
}

# Keep these places in step with internal/local/find.go.
has_postgres() {
    [ -n "${AFTERWRITE_POSTGRES_BIN:-}" ] && return 0
    for program in "$(command -v postgres || true)" \
        /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
        /opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres; do
        [ -n "$program" ] && [ -x "$program" ] && return 0
    done
    return 1
}

# Like has_postgres. Keep these places in step with internal/local/find.go.
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

# apt-get prints a lot: show it only if it fails.
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

# Debian's package prometheus would start two servers. So it is not installed: promtool is extracted from it into .bin.
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
    # pgbench comes with the server's package. Reinstall it if the server was installed without pgbench.
    ! has_postgres || has_pgbench || missing="$missing postgresql"
fi
case "${1:-}" in
test | clients)
    command -v curl >/dev/null 2>&1 || missing="$missing curl"
    command -v python3 >/dev/null 2>&1 || missing="$missing python3"
    command -v node >/dev/null 2>&1 || missing="$missing nodejs"
    ;;
esac
if [ "${1:-}" = test ]; then
    command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
    command -v redis-cli >/dev/null 2>&1 || missing="$missing redis-tools"
    command -v npm >/dev/null 2>&1 || missing="$missing npm"
fi

# npm writes .package-lock.json when it has installed everything.
install_clients() {
    [ "${1:-}" = test ] || return 0
    [ proof/clients/node_modules/.package-lock.json -nt proof/clients/package-lock.json ] && return 0
    echo "setup: installing the packages of proof/clients"
    npm ci --prefix proof/clients --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
}

if [ -z "$missing" ]; then
    install_clients "$@"
    exit 0
fi

echo "setup: installing$missing"
# $missing is a list of package names, split on purpose.
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
    brew install --quiet $(echo "$missing" | sed 's/redis-server/redis/; s/redis-tools/redis/; s/postgresql/postgresql@17/; s/nodejs/node/; s/npm/node/')
else
    echo "setup: neither apt-get nor brew is here; install these with your system's packages:$missing" >&2
    exit 1
fi

# Fail here with a clear message rather than later.
if ! has_redis || ! has_postgres; then
    echo "setup: installed, but redis-server or postgres is still not found: set AFTERWRITE_REDIS_SERVER and AFTERWRITE_POSTGRES_BIN" >&2
    exit 1
fi
install_clients "$@"
