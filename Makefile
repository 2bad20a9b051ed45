.DEFAULT_GOAL := help
SHELL := /bin/sh

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
# When the commit was made, not when it is built: so the same commit gives the same bytes.
DATE ?= $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
COMMAND := github.com/afterwrite/afterwrite/internal/command
LDFLAGS = -s -w -X $(COMMAND).version=$(VERSION) -X $(COMMAND).commit=$(COMMIT) -X $(COMMAND).date=$(DATE)
BINARY ?= bin/afterwrite

LINT_VERSION := v2.15.0
LINT := .bin/golangci-lint-$(LINT_VERSION)
ACTIONLINT_VERSION := v1.7.12
ACTIONLINT := .bin/actionlint-$(ACTIONLINT_VERSION)

# The race detector needs cgo and a C compiler; `go env CGO_ENABLED` says 0 where there is none.
RACE = $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v $$(go env CC) >/dev/null 2>&1 && echo -race)

# The tests make and drop hundreds of databases, of some 300 files each: in memory that takes a third of the processor time.
IN_MEMORY = $(shell findmnt -nbo AVAIL,OPTIONS -T /dev/shm 2>/dev/null | awk '$$1 > 4e9 && $$2 !~ /noexec/ { print "TMPDIR=/dev/shm"; exit }')

.PHONY: help
help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: deps build ## Run everything here: private Redis and Postgres, api, worker, scheduler, dashboard
	@exec bin/afterwrite up

.PHONY: deps
deps: ## Install redis-server and postgres, if they are missing
	@deploy/setup.sh

.PHONY: promtool
promtool:
	@deploy/setup.sh promtool

# Without VCS stamps, which fail in a clone that belongs to another user; the flags say the same.
.PHONY: build
build: ## Build the static binary bin/afterwrite
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) .

# Most tests wait for servers, time-outs and intervals: more of them at once than there are cores take half the time.
.PHONY: test
test: promtool ## Run every test, against real servers and in a real browser
	@deploy/setup.sh test
	@test -n "$(RACE)" || echo "test: no C compiler, so without the race detector"
	$(IN_MEMORY) go test $(RACE) -count=1 -parallel 4 -timeout 6m ./...

# Go caches the results of packages that have not changed; the race detector, the browser and the rigs are for `make test`.
.PHONY: test-fast
test-fast: promtool ## Run the tests of the product alone, for daily work: no browser, no end-to-end tests, no race detector
	@deploy/setup.sh clients
	$(IN_MEMORY) go test -parallel 8 -timeout 3m $$(go list ./... | grep -vE '/(proof|dashboard/browser)(/|$$)')

.PHONY: bench-test
bench-test: ## Test what `make bench` does with wrk and webdis, which it installs
	@deploy/setup.sh bench
	go test $(RACE) -count=1 -timeout 2m -tags bench ./proof/bench/... ./proof/world

.PHONY: list-million
list-million: deps ## List a million counters page by page, without and with writes, and check Redis's memory
	$(IN_MEMORY) go test -count=1 -timeout 10m -tags million -run '^TestListOfAMillionCounters$$' -v ./proof/e2e

.PHONY: fleet
fleet: deps ## Run 1 to 8 workers and 1 to 4 apis, freeze a worker for a minute, set clocks wrong: 10 minutes
	$(IN_MEMORY) go test -count=1 -timeout 30m -tags fleet -run '^Test(Fleet|Frozen|Clocks)' -v ./proof/e2e

.PHONY: mapping-million
mapping-million: deps ## Import a million rows of a mapped table under load, compare them, and write them back
	$(IN_MEMORY) go test -count=1 -timeout 10m -tags million -run '^TestImportOfAMillionRows$$' -v ./internal/operate

.PHONY: losttail-million
losttail-million: deps ## Read a million counters after a restart of Redis, with and without Postgres: 5 to 10 minutes
	$(IN_MEMORY) go test -count=1 -timeout 25m -tags million -run '^TestReadsOfAMillionEntriesAfterARestart$$' -v ./proof/e2e

.PHONY: images
images: ## Take the images of docs/images again, in a browser: 15 minutes
	@deploy/setup.sh test
	go test -count=1 -timeout 40m -ldflags '$(LDFLAGS)' -tags images -run '^TestImages$$' ./dashboard/browser

DURATION ?= 60s
SEED ?= 1

.PHONY: chaos
chaos: deps ## Kill parts of a loaded afterwrite at random, and check every counter: make chaos DURATION=5m SEED=1
	go run ./proof/chaos -duration $(DURATION) -seed $(SEED)

.PHONY: chaos-resp
chaos-resp: deps ## The same with clients that speak the Redis protocol
	go run ./proof/chaos -duration $(DURATION) -seed $(SEED) -protocol resp

.PHONY: chaos-history
chaos-history: deps ## make chaos with a history of all counters: their records must be complete, and lead to the rows
	go run ./proof/chaos -duration $(DURATION) -seed $(SEED) -history

.PHONY: chaos-sentinel
chaos-sentinel: deps ## make chaos on a Redis with a replica and sentinels, with AFTERWRITE_DURABILITY=replica
	go run ./proof/chaos -duration $(DURATION) -seed $(SEED) -topology sentinel

.PHONY: chaos-cluster
chaos-cluster: deps ## The same on a Redis Cluster, with AFTERWRITE_DURABILITY=replica
	go run ./proof/chaos -duration $(DURATION) -seed $(SEED) -topology cluster

FAILOVER ?= -runs 1

.PHONY: failover
failover: deps ## Measure what failovers of Redis cost: make failover FAILOVER='-scenario cluster-kill -durability replica -runs 3'
	go run ./proof/failover $(FAILOVER)

OUTAGE ?= 60s

.PHONY: chaos-outage
chaos-outage: deps ## Take Postgres away for a minute at 5,000 writes/s: no write may fail, the backlog has to drain
	go run ./proof/chaos -outage $(OUTAGE) -seed $(SEED) -rate 5000 -clients 64 -keys 100000

.PHONY: postgres-failover
postgres-failover: deps ## Promote a standby of Postgres under load, after the primary was killed, and while it is frozen
	$(IN_MEMORY) go test -count=1 -timeout 5m -tags failover -run '^(TestAPromotion|TestAStandby)' -v ./proof/e2e

OPERATIONS ?= 1000000
CUTS ?= 50

.PHONY: stream-proof
stream-proof: deps ## Send a million operations in one stream, cut it 50 times, and send hostile bodies: some minutes
	$(IN_MEMORY) go test -count=1 -parallel 1 -timeout 60m -v ./proof/stream -operations=$(OPERATIONS) -cuts=$(CUTS)

CHECKS ?= 2000

.PHONY: machine
machine: deps ## Try random steps and faults against the model for longer: make machine CHECKS=10000
	$(IN_MEMORY) go test $(RACE) -count=1 -timeout 60m -run '^TestMachine$$' ./worker -rapid.checks=$(CHECKS) -rapid.steps=60

.PHONY: mutants
mutants: deps ## Break each rule of the design in a copy, and require that the machine notices
	$(IN_MEMORY) go run ./proof/mutant

.PHONY: mutants-all
mutants-all: deps ## The same for every line that the guarantees rest on: some minutes
	$(IN_MEMORY) go run ./proof/mutant -all

BENCH ?= -document

.PHONY: bench
bench: ## Measure afterwrite and its peers, and write the table of docs/performance.md: about 25 minutes on 2 cores
	@deploy/setup.sh bench
	go run ./proof/bench $(BENCH)

.PHONY: bench-smoke
bench-smoke: ## Run every micro-benchmark once, to see that they work
	go test -run '^$$' -bench . -benchtime 1x $$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n 1 dirname | sort -u)

.PHONY: lint
lint: $(LINT) ## Run golangci-lint (installed into .bin)
	$(LINT) run ./...

$(LINT):
	GOBIN=$(CURDIR)/.bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv .bin/golangci-lint $@

.PHONY: check-compose
check-compose: ## Check docker-compose.yml, where docker-compose is installed
	@if docker compose version >/dev/null 2>&1; then docker compose --profile monitoring config -q; \
	elif command -v docker-compose >/dev/null 2>&1; then docker-compose --profile monitoring config -q; \
	else echo "check-compose: skipped, there is no docker-compose here"; fi

KUSTOMIZE := .bin/kustomize
KUBECONFORM := .bin/kubeconform

.PHONY: check-k8s
check-k8s: $(KUSTOMIZE) ## Build the manifests of deploy/k8s, and check them against their schemas (tools installed into .bin)
	@KUSTOMIZE=$(CURDIR)/$(KUSTOMIZE) KUBECONFORM=$(CURDIR)/$(KUBECONFORM) deploy/k8s/check.sh

# Their versions are in the go.mod of a module of its own.
$(KUSTOMIZE): deploy/k8s/tools/go.mod
	@mkdir -p .bin
	cd deploy/k8s/tools && go build -o $(CURDIR)/.bin/ tool
	@touch $@

.PHONY: k8s-schemas
k8s-schemas: ## Write the schemas of deploy/k8s/schemas again, from the Go types of Kubernetes, KEDA and the Prometheus Operator
	cd deploy/k8s/schemagen && go run . ../schemas

.PHONY: check-systemd
check-systemd: ## Check the units of deploy/systemd, where systemd is installed
	@deploy/systemd/check.sh

.PHONY: check-workflows
check-workflows: $(ACTIONLINT) ## Check the workflows of .github with actionlint (installed into .bin)
	$(ACTIONLINT) -color

$(ACTIONLINT):
	GOBIN=$(CURDIR)/.bin go install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
	@mv .bin/actionlint $@

.PHONY: dist
dist: ## Build the release archives into dist: make dist VERSION=v1.2.3
	@deploy/release.sh build $(VERSION) dist

.PHONY: release
release: ## Check, build and tag a release that CHANGELOG.md describes: make release VERSION=v1.2.3
	@deploy/release.sh tag $(VERSION)

.PHONY: release-check
release-check: ## Build a release twice, once with an empty cache, and require the same bytes: some minutes
	@folder=$$(mktemp -d) && deploy/release.sh check "$$folder"; status=$$?; rm -rf "$$folder"; exit $$status

IMAGE ?= afterwrite
PLATFORMS ?= linux/amd64,linux/arm64

.PHONY: image
image: ## Build the image for amd64 and arm64, and push it: make image IMAGE=ghcr.io/me/afterwrite VERSION=v1.2.3
	docker buildx build --platform $(PLATFORMS) --push -t $(IMAGE):$(VERSION) \
		--build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) --build-arg DATE=$(DATE) .

PROMTOOL = $(shell command -v promtool || echo .bin/promtool)

.PHONY: check-alerts
check-alerts: deps promtool ## Check the alerts, and the metrics of every process, with promtool
	$(PROMTOOL) check rules deploy/prometheus/alerts.yml
	$(PROMTOOL) test rules deploy/prometheus/alerts_test.yml
	$(PROMTOOL) check config deploy/prometheus/prometheus.yml
	go test -count=1 -run '^TestMonitoring' ./internal/command

.PHONY: tidy
tidy: $(LINT) ## Format the code and tidy go.mod
	$(LINT) fmt ./...
	go mod tidy

.PHONY: clean
clean: ## Remove what was built; the data in .afterwrite stays
	rm -rf bin .bin dist coverage.out coverage.html
