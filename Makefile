# One verb per line; `make` alone lists them. The steps themselves are small scripts in ci/.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt verify haiku determinism bench

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv, install the locked dependencies, build the Rust part
	@ci/setup

demo: setup ## start a daemon, stream a haiku from a real model, verify its receipt
	@.venv/bin/orchqueue demo

test: setup ## every test: Rust, then Python from unit to end to end
	@ci/test

lint: setup ## format, lints, types, stubs, licences, links
	@ci/lint

fmt: setup ## format Rust and Python
	@cargo fmt --all
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format --quiet .

verify: setup ## generated files, requirement traces and lock files are current
	@ci/verify

haiku: setup ## the release gate: a fresh poem by a real model, through the public API
	@PYTHONPATH=test-harness/haiku .venv/bin/python -m haiku_gate

determinism: setup ## hold real replicas to equal bytes, measure which set-ups harm them (some minutes)
	@PYTHONPATH=test-harness/determinism .venv/bin/python -m determinism_suite

bench: setup ## measure the daemon beside nginx and other gateways (some minutes, both cores)
	@.venv/bin/python test-harness/bench/bench.py
