# Consign. Every target is thin: one command of go, or one script.
#
#   make demo [FROM=dir] [KEEP=1]   build, then watch files go from one provider to another
#   make test                       all tests, with the race detector where a C compiler is
#   make check                      what CI runs: format, vet, lint, policy, tidy, fuzz, test
#   make fuzz [T=30s]               every fuzz target for T
#   make stores                     the drivers of object stores, in full (10 minutes)
#   make bench crash soak           measure; kill processes at random; run for hours
#   make rotate revoke short        certificates that change, capabilities that end, while bytes move (10 minutes each)
#   make adopt                      a million objects entered in the namespace: memory, and how long others wait
#   make docs                       write golden vectors and generated pages anew
#   make build servers lint clean

.NOTPARALLEL:
.DEFAULT_GOAL := build
.PHONY: demo test stores check bench fuzz crash soak rotate revoke short adopt build docs servers lint clean format vet policy tidy

# T is how long each fuzz target runs under `make fuzz`.
T ?= 30s

# Outside of a git checkout (a source archive) the version says so. The git
# directory is named, so that a checkout around us is not taken for ours.
GIT     := git --git-dir=$(CURDIR)/.git --work-tree=$(CURDIR)
VERSION := $(or $(shell $(GIT) describe --tags --always --dirty 2>/dev/null),devel)
COMMIT  := $(shell $(GIT) rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

build:
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/consign ./cmd/consign

demo: build
	@bin/consign demo $(if $(FROM),--from '$(FROM)') $(if $(filter-out 0,$(KEEP)),--keep)

# What runs goroutines of ours runs under the race detector. -short thins out tests that go
# through thousands of cases, where it costs fivefold; scripts/thinned runs those in full without it.
# PURE starts no goroutine, or is a fake: in full and without it at once. SERVED are the drivers of object stores, which wait for other
# processes: without it and thinned out; `make stores` runs them in full.
# The tests of cmd wait for processes longest: they come first, and one package more than there are processors at a time.
PURE   := agent/(chunk|wire)|agent/store/mem|broker/(acl|space)|scripts/check|token
SERVED := agent/store/(azure|gcs|s3|storetest)
test: servers
	go test $$(scripts/race) -short -p 3 -timeout 25m $$(go list ./cmd/... ./... | grep -vE '/($(PURE)|$(SERVED))(/|$$)')
	go test -timeout 25m $$(go list ./... | grep -E '/($(PURE))(/|$$)')
	go test -short -p 3 -timeout 25m $$(go list ./... | grep -E '/($(SERVED))(/|$$)')
	scripts/thinned '$(PURE)|$(SERVED)' -timeout 25m

# A fault at each call of each driver, with each of the servers.
stores: servers
	go test -count=1 -timeout 60m $$(go list ./... | grep -E '/($(SERVED))(/|$$)')

# The tests come last, so that their lines are the last that are read.
check: format vet lint policy tidy
	@scripts/fuzz 20000x
	@$(MAKE) --no-print-directory test

format:
	@echo 'gofmt -l .'
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "not formatted:"; echo "$$files"; exit 1; fi

vet:
	GOOS=linux go vet ./...
	GOOS=darwin go vet ./...

lint: bin/golangci-lint
	bin/golangci-lint run --allow-serial-runners ./...

bin/golangci-lint: scripts/tools/go.mod scripts/tools/go.sum
	@mkdir -p bin
	CGO_ENABLED=0 go build -C scripts/tools -trimpath -buildvcs=false -o $(CURDIR)/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

policy:
	go test -count=1 ./scripts/check

tidy:
	go mod tidy -diff

fuzz:
	@scripts/fuzz $(T)

bench:
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...

crash: build
	go run ./scripts/campaign crash

# Certificates of both agents, broker and subscriber are replaced a hundred times under one transfer of 10 GiB.
rotate: build
	go run ./scripts/campaign rotate

# Transfers that run are paused, cancelled, or shut out: when does the last byte come?
revoke: build
	go run ./scripts/campaign revoke

# A transfer of five minutes with capabilities of one.
short: build
	go run ./scripts/campaign short

# A million objects that stand in a store are entered in the namespace, twice: is memory flat, and do others wait?
adopt: build
	go run ./scripts/campaign adopt

soak: build
	go run ./scripts/campaign crash -runs 200
	go run ./scripts/campaign race -rounds 10000
	go run ./scripts/campaign scale
	go run ./scripts/campaign rotate
	go run ./scripts/campaign revoke
	go run ./scripts/campaign short
	go run ./scripts/campaign adopt

# Some tests write the golden vectors and the pages of docs that they check.
docs:
	go test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' agent broker certs cmd token | xargs -n1 dirname | sed 's|^|./|' | sort -u) -update

# The object stores and the authority that tests start, of pinned versions, below the user's cache directory.
servers:
	@go run ./scripts/servers

clean:
	rm -rf bin dist
