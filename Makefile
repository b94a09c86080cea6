# The words for people and for CI. `make` alone says what they do.

CARGO ?= cargo
PYTEST = .cache/venv/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-envoy assure doc tools clean-cache

help: ## What the words do.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

run: ## Start a server to try things out, in .remit-dev.
	$(CARGO) run --release -- serve --dev

test: tools ## All tests: Rust, then the real program with clients in Python.
	$(CARGO) test
	$(PYTEST) tests/life

lint: tools ## Format, clippy, documentation and protocol files.
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps
	tests/life/buf lint

assure: tools ## The large figures, hours of them, into docs/assurance.md.
	$(CARGO) test --no-run
	$(CARGO) build --release
	tests/assure

bench: tools ## What things cost.
	$(CARGO) bench
	$(CARGO) test --release --test cost -- --nocapture

bench-envoy: tools ## What the check adds to a request through Envoy; takes five minutes.
	$(CARGO) bench --no-run --bench envoy
	.cache/venv/bin/python tests/life/bench_envoy.py

doc: ## The library's documentation, opened in a browser.
	$(CARGO) doc --no-deps --open

# What tests and lint need beside Rust, in .cache.
tools:
	@tests/life/setup

clean-cache: ## Remove what tests installed.
	rm -rf .cache
