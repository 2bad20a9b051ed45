#!/bin/sh
# Builds reproducible releases: the same commit, version, Go and gzip give the same bytes, on any machine and in any folder.
#   release.sh build VERSION DIR   builds archives for each platform, with checksums and release notes, into DIR
#   release.sh tag VERSION         checks that VERSION can be released, builds it into dist/, and tags the commit
#   release.sh check DIR           builds twice, in two clones below DIR and with two build caches, and compares the results
set -eu
cd "$(dirname "$0")/.."

platforms='linux/amd64 linux/arm64'

fail() {
    echo "release: $*" >&2
    exit 1
}

# Prints the section of CHANGELOG.md about a version, without its heading.
notes() {
    awk -v heading="## [${1#v}]" 'index($0, "## [") == 1 { inside = index($0, heading) == 1; next } inside' CHANGELOG.md
}

# Packs a folder. Times and owners do not depend on this machine.
archive() {
    folder=$1
    name=$2
    tar -C "$folder" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' \
        --mtime="@$(git log -1 --format=%ct)" -cf - "$name" | gzip -9n >"$folder/$name.tar.gz"
}

build() {
    version=$1
    mkdir -p "$2"
    out=$(cd "$2" && pwd)
    rm -f "$out"/afterwrite_* "$out/checksums.txt" "$out/notes.md"
    for platform in $platforms; do
        name="afterwrite_${version#v}_$(echo "$platform" | tr / _)"
        mkdir "$out/$name"
        GOOS=${platform%/*} GOARCH=${platform#*/} GOAMD64=v1 GOARM64=v8.0 GOFLAGS= \
            make --no-print-directory build VERSION="$version" BINARY="$out/$name/afterwrite" >/dev/null
        cp LICENSE README.md CHANGELOG.md "$out/$name"
        archive "$out" "$name"
        rm -r "${out:?}/$name"
    done
    notes "$version" >"$out/notes.md"
    (cd "$out" && sha256sum afterwrite_*.tar.gz >checksums.txt && cat checksums.txt)
}

tag() {
    echo "$1" | grep -Eq '^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9a-z.]+)?$' || fail "VERSION must be such as v1.2.3 or v1.2.3-rc.1; it is $1"
    [ -z "$(git status --porcelain)" ] || fail "the work tree has changes: commit them"
    [ -n "$(notes "$1" | tr -d '[:space:]')" ] || fail "CHANGELOG.md must have a section [${1#v}]"
    ! git rev-parse -q --verify "refs/tags/$1" >/dev/null || fail "the tag $1 exists"
    build "$1" dist
    git tag -a "$1" -m "afterwrite $1"
    echo "release: tagged $1; git push origin $1 publishes it"
}

# One build starts with an empty build cache. The other uses the cache of this machine.
check() {
    build_clone "$1/one" "$1/cache"
    build_clone "$1/another/folder" "$(go env GOCACHE)"
    cmp "$1/one/dist/checksums.txt" "$1/another/folder/dist/checksums.txt" || fail "two builds of one commit differ"
    echo "release: two builds are the same, byte for byte"
}

build_clone() {
    mkdir -p "$(dirname "$1")"
    git clone -q . "$1"
    GOCACHE=$2 "$1/deploy/release.sh" build v0.0.0-check "$1/dist"
}

case "${1:-}" in
build) build "$2" "$3" ;;
tag) tag "$2" ;;
check) check "$2" ;;
*) fail "the first argument must be build, tag or check" ;;
esac
