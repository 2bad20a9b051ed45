#!/bin/sh
# Builds each overlay, and checks the result against the schemas in deploy/k8s/schemas, offline. A field that no schema knows is an error:
# the last part misspells some, and requires that each is found. KUSTOMIZE and KUBECONFORM are the programs.
set -eu
cd "$(dirname "$0")"

schema='schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json'
built=$(mktemp)
trap 'rm -f "$built"' EXIT
for overlay in base overlays/*; do
    echo "check-k8s: $overlay"
    "$KUSTOMIZE" build "$overlay" >"$built"
    # From a file it reads nothing unless the name ends with .yaml.
    "$KUBECONFORM" -strict -summary -schema-location "$schema" - <"$built"
done

for field in readOnlyRootFilesystem topologyKey periodSeconds scaleTargetRef policyTypes scrapeTimeout; do
    if "$KUSTOMIZE" build overlays/keda | sed "s/ $field:/ ${field}x:/" | "$KUBECONFORM" -strict -schema-location "$schema" - >/dev/null; then
        echo "check-k8s: the misspelt field ${field}x is not found" >&2
        exit 1
    fi
done
