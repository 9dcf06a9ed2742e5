# What a newcomer types: `make demo`, `make test`. What CI types: .ci/run, which calls `make test`.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PACKAGES := . plugins/http plugins/orders plugins/documents
UV := uv==0.13.8
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet pyproject.toml
PYTEST_FLAGS ?= -n 2
NODE_STAMP := tests/e2e/node/node_modules/.stamp

.PHONY: help setup demo test chaos fuzz mutants unit lint format types layers schemas sim bench ratios lock clean

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.stamp  ## the virtual environment, with wpa and its plugins

$(VENV)/.stamp: requirements.lock pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@test -n "$(PYTHON)" || { found=$$(python3 --version 2>/dev/null) || found="no python3"; \
		echo "wpa needs Python 3.11 or newer, and the PATH has $$found;" \
		"install it, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV): wpa, and the tools of its tests. Up to a minute, and a download of 70 MB the first time." >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		$(addprefix --editable=./,$(PACKAGES))
	@touch $@

demo: setup  ## the main job, on real input, from nothing
	@$(BIN)/python examples/demo

test: setup $(NODE_STAMP)  ## the whole test suite
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# Node is only needed for the tests that start workflows from another language. Without it they are
# skipped, and say so; CI (CI=true) fails if they are.
$(NODE_STAMP): tests/e2e/node/package.json tests/e2e/node/package-lock.json
	@if command -v npm >/dev/null 2>&1; then \
		npm ci --prefix tests/e2e/node --silent --no-audit --no-fund && touch $@; \
	elif [ "$$CI" = "true" ]; then echo "CI needs Node.js for the e2e client" >&2; exit 1; \
	else echo "no npm: the tests with the Node client will be skipped" >&2; fi

# The first workers of a rolling upgrade run the wpa of OLDER, if git can export it.
chaos: setup  ## break real processes, for longer: SECONDS=60 each, EVERY=1 for all crash points, upgraded from OLDER=REVISION
	@report=$$(mktemp); older=$$(mktemp -d); trap 'rm -rf "$$report" "$$older"' EXIT; \
	if git archive --output="$$older/wpa.tar" $(or $(OLDER),HEAD) wpa; then tar -xf "$$older/wpa.tar" -C "$$older"; \
	else rm -rf "$$older"; older=; test -z "$(OLDER)" || exit 1; fi; \
	status=0; CHAOS_REPORT="$$report" CHAOS_OLDER="$$older" CHAOS_SECONDS=$(or $(SECONDS),40) \
		CHAOS_EVERY=$(or $(EVERY),3) $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/chaos || status=$$?; \
	$(BIN)/python -m tests.chaos.report "$$report"; exit $$status

fuzz: setup  ## hostile tasks, requests and definitions, other ones each time: EXAMPLES=20000 each
	FUZZ_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/python -m pytest $(PYTEST_FLAGS) --timeout=0 \
		tests/unit/engine/test_hostile_tasks.py tests/unit/plan/test_hostile_definitions.py tests/chaos/test_hostile_input.py

mutants: setup  ## plant known bugs, and see which test notices
	$(BIN)/python -m tests.mutants $(if $(ONLY),--only "$(ONLY)")

unit: setup  ## the tests without a server: a minute or two for all, seconds for ONLY=tests/unit/kernel
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(or $(ONLY),tests/unit tests/golden)

lint: setup  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy --strict plugins/http/wpa_http plugins/orders/wpa_orders plugins/documents/wpa_documents

layers: setup  ## the house: who may import whom
	$(BIN)/lint-imports

schemas: setup  ## write the generated schemas anew
	$(BIN)/wpa schema --out-dir schemas

# More of what `make test` runs some of; SEED=n runs one again. A seed gives the same run each time. With
# JUDGED=1 the checker judges each run, too, as it does the one of SEED=n; that takes half as long again.
sim: setup  ## the engine on a bad day, simulated: SEEDS=5000 FROM=0 JOBS=2 JUDGED=1, or SEED=4711
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000) --from $(or $(FROM),0) \
		--jobs $(or $(JOBS),1) $(if $(JUDGED),--judged))

bench: setup  ## all figures of speed, beside their goals (ARGS="--quick", "--only seq3")
	$(BIN)/python benchmarks/run.py $(ARGS)

ratios: setup  ## has the engine become slower? by ratio to the floor (ARGS="--record": note it anew)
	$(BIN)/python benchmarks/ratios.py $(ARGS)

# The second file is what the container image holds: no tools, the same versions.
lock: setup  ## pin all dependencies anew (UPGRADE=1: to the newest)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(COMPILE) $(if $(UPGRADE),--upgrade) --group dev --output-file requirements.lock
	$(COMPILE) --group plugins --constraints requirements.lock --output-file requirements-image.lock

clean:  ## remove what was set up
	rm -rf $(VENV) .wpa .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/e2e/node/node_modules
