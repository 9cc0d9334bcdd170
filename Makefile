# Every command a person needs, and the order in which they need each other; `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup test lint demo drill up down status bench long chaos simulation mutants lock clean

BUILD := build
BIN := $(BUILD)/venv/bin
ONLY ?=
EVENTS ?=
ROUNDS ?= 1
SEED ?= 1

# Nothing is written outside build/: not caches, not byte code.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(BUILD)/pycache
# Many images forbid to keep byte code, and then every process compiles all that it imports: twice the time of a start.
export PYTHONDONTWRITEBYTECODE :=
export PIP_CACHE_DIR := $(CURDIR)/$(BUILD)/cache/pip
export UV_CACHE_DIR := $(CURDIR)/$(BUILD)/cache/uv

help: ## list the targets
	@echo 'make <target>, where <target> is one of:'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make build/venv, install what is locked, fetch the broker and Redis (again: takes a second)
	@sh deploy/local/set_up.sh

test: setup ## everything that CI checks: lint, types, layers, all tests (ONLY='-k claim' narrows pytest)
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest --numprocesses=2 --dist=loadscope $(ONLY)

lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir $(BUILD)/import-linter

demo: setup ## start everything, play the town, follow one patient, check, write build/demo.json
	$(BIN)/medchain demo

drill: setup ## replay, switch and roll back under load; write build/drill.json (EVENTS=1000000 RATE=200 for the long one)
	$(BIN)/medchain drill --events $(or $(EVENTS),20000) --rate $(or $(RATE),50)

up: setup ## keep the platform running with made data in it, and print where to find what (EVENTS=0: without)
	@$(BIN)/python -m deploy.local up --events=$(or $(EVENTS),2000)

down: ## stop what `make up` started
	@$(BIN)/python -m deploy.local down

status: ## what runs, and where
	@$(BIN)/python -m deploy.local status

long: setup ## the tests that take minutes: replays killed, stopped, and after a loss; a small drill
	$(BIN)/pytest tests -m long $(ONLY)

bench: setup ## the measurements, which a busy machine makes worthless
	$(BIN)/pytest tests/benchmark -o python_files='bench_*.py' -m benchmark -s $(ONLY)

chaos: setup ## break the platform under load and check what came of it; build/chaos.json (ROUNDS=2 SEED=7 EVENTS=20000)
	$(BIN)/medchain chaos --rounds $(ROUNDS) --seed $(SEED) --events $(or $(EVENTS),20000)

simulation: setup ## the platform in one process, by seeded schedules, with faults at every await (SCHEDULES=10000 SEED=1)
	$(BIN)/python -m tests.simulation --schedules $(or $(SCHEDULES),1000) --seed $(or $(SEED),1)

mutants: setup ## take one protection after the other out of the processes: chaos must catch each
	$(BIN)/pytest tests/chaos -o python_files='caught_*.py' $(ONLY)

lock: setup ## choose versions anew from pyproject.toml (with hashes, for every platform and Python)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		deploy/local/java.in -o deploy/local/java.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		deploy/local/redis.in -o deploy/local/redis.lock

clean: ## stop the platform and remove build/ whole
	@test ! -x $(BIN)/python || $(BIN)/python -m deploy.local down
	rm -rf $(BUILD)
