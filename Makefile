# Each target is one line of meaning; `make help` prints them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
ONLY ?=
MINUTES ?= 10
MODE ?=
export CARGO_TERM_COLOR ?= auto
# What this checkout's tests make on the machine bears this in its name: several checkouts may be tested at once.
export DMVPN_TEST_MARK := $(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)

help: ## print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: setup ## the main job, encrypted (MODE=none: in clear): a hub, spokes (one behind a NAT) and hosts in network namespaces, narrated; cleans up
	@scripts/build.sh release
	@MODE=$(MODE) target/release/dmvpn-demo

check: setup ## format, lints, unit and virtual-time tests: about a minute
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) test --workspace --quiet --lib --bins $(addprefix --test ,$(VIRTUAL_TESTS))

# Integration tests by name. Cargo is always asked for the whole workspace and then for targets by name: it chooses the
# features of dependencies by the packages that are asked for, and would compile them again for each `-p`. So a name may
# not stand for two kinds of tests.
tests = $(sort $(basename $(notdir $(wildcard $(1:%=%/tests/*.rs)))) $(notdir $(patsubst %/main.rs,%,$(wildcard $(1:%=%/tests/*/main.rs)))))
# Of crates whose tests need neither root nor a network.
VIRTUAL_TESTS := $(call tests,$(wildcard protocols/*) crds plan rpc dmvpnctl)
ROOT_TESTS := $(filter-out corpus,$(call tests,dataplane dataplane/linux-io node-agent))
$(if $(filter $(VIRTUAL_TESTS),$(ROOT_TESTS)),$(error one name for tests of two kinds: $(filter $(VIRTUAL_TESTS),$(ROOT_TESTS))))
$(if $(filter $(VIRTUAL_TESTS) $(ROOT_TESTS),$(call tests,e2e)),$(error a story has the name of a crate's test: $(filter $(VIRTUAL_TESTS) $(ROOT_TESTS),$(call tests,e2e))))

# Stories on real clusters stand apart: they take half an hour more, and their first run builds Kubernetes from source.
test: setup note check root-tests e2e e2e-clear interop ## check, namespaces, foreign peers (real clusters: make e2e-kubernetes); nothing may be left behind
	@scripts/leftovers.sh check

note:
	@scripts/leftovers.sh note

root-tests: setup ## tests of single crates that make namespaces (need root)
	@scripts/build.sh debug
	DMVPN_SECURITY=none $(CARGO) test --workspace $(addprefix --test ,$(ROOT_TESTS))

# SECURITY= cert, psk or none, ESP= a proposal: how the networks of the stories are protected. Without them each story
# has what falls to its name. Stories about encryption itself say for themselves what they need.
SECURITY ?=
ESP ?=
e2e e2e-encrypted interop: export DMVPN_SECURITY := $(or $(SECURITY),varied)
ifneq ($(ESP),)
export DMVPN_ESP := $(ESP)
endif

e2e: setup ## stories in network namespaces (need root); ONLY=name picks one; SECURITY=cert|psk|none, ESP=...
	@scripts/build.sh debug
	DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh lab $(ONLY)

e2e-clear: setup ## a choice of the stories again, without encryption
	@scripts/build.sh debug
	DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh clear $(ONLY)

e2e-encrypted: SECURITY := $(or $(SECURITY),cert)
e2e-encrypted: setup ## the stories of the overlay again, with certificates; SECURITY=psk, ESP=...
	@scripts/build.sh debug
	DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh overlay $(ONLY)

e2e-matrix: setup ## the stories of the overlay with each cipher, by certificates and by pre-shared keys: half an hour
	@scripts/build.sh debug
	@for security in cert psk; do for esp in aes128gcm16 aes256gcm16 chacha20poly1305; do \
		echo "== $$security $$esp"; \
		DMVPN_SECURITY=$$security DMVPN_ESP=$$esp DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh overlay || exit 1; \
	done; done

# What every foreign router offers.
interop: export DMVPN_ESP := $(or $(ESP),aes128gcm16)
interop: setup ## stories against Linux mGRE + FRR routers in user-mode guests (need root); ONLY=name picks one
	@e2e/interop/rig.sh build
	@scripts/build.sh debug
	DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh interop $(ONLY)

kubernetes-setup: setup ## builds Kubernetes, etcd, containerd and Helm from source, once: 15 min and 4 GB when nothing is there
	@e2e/kubernetes/setup.sh

demo-kubernetes: kubernetes-setup ## the main job between real clusters: Helm, three short files, pods that talk; narrated; cleans up
	@scripts/build.sh debug
	@target/debug/dmvpn-demo-kubernetes

e2e-kubernetes: kubernetes-setup ## stories on real clusters (need root); ONLY=name picks one
	@scripts/build.sh debug
	DMVPN_BIN_DIR=$(CURDIR)/target/debug scripts/stories.sh kubernetes $(ONLY)

flood: setup ## 10,000 spoofed handshakes a second for 30 s against the release build (needs root)
	@scripts/build.sh release
	DMVPN_BIN_DIR=$(CURDIR)/target/release DMVPN_FLOOD_RATE=10000 DMVPN_FLOOD_SECONDS=30 $(CARGO) test --workspace --test flood

scale: setup ## 2,000 spokes at one hub of the release build: memory for each, and how soon all are back after its kill -9 (needs root)
	@scripts/build.sh release
	DMVPN_BIN_DIR=$(CURDIR)/target/release DMVPN_SCALE_SPOKES=2000 $(CARGO) test --workspace --test many_spokes -- --nocapture

bench: setup ## against peers in one run; prints ratios, writes docs/benchmarks.md; PEERS=... picks
	@command -v wg >/dev/null || apt-get install -qq -y --no-install-recommends wireguard-tools
	@scripts/build.sh release
	@target/release/dmvpn-bench $(if $(PEERS),--peers $(PEERS))

schedules: setup ## 10,000 random schedules of two IKE endpoints (make check runs 1,000)
	SCHEDULES=10000 $(CARGO) test --quiet -p dmvpn-ikev2 --test schedules

fuzz: setup ## every fuzz target for MINUTES=10 each
	@scripts/fuzz.sh $(MINUTES)

coverage: setup ## line coverage of protocols/; fails below 90 %
	@scripts/coverage.sh

deny: ## licences, sources and duplicates of all dependencies (cargo-deny)
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

generate: ## write generated files again (CRDs, field reference, gRPC code); CI fails when they differ
	@scripts/generate.sh

setup:
	@scripts/setup.sh

.PHONY: help demo check test note root-tests e2e e2e-clear e2e-encrypted e2e-matrix interop kubernetes-setup demo-kubernetes e2e-kubernetes flood scale bench schedules fuzz coverage deny generate setup
