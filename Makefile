# Needs only python3 (3.11 or newer) with venv. Everything lives in .venv; `make clean` forgets it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODES  := ignore-without-code redundant-expr truthy-bool possibly-undefined# of mypy, as in pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help install demo up docs test fuzz chaos containers bench bench-smoke breaker map man dashboard picture check format lint types contracts lock sbom clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Install into .venv, versions and hashes as locked

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(STAMP) ## Show it all at work, about two minutes, ends with a verdict
	@$(BIN)/token-worker demo

up: $(STAMP) ## Run everything until Ctrl-C, data kept in .data
	@$(BIN)/token-worker up

docs: $(STAMP) ## Write docs/error-codes.md from the table of codes
	@$(BIN)/python -m worker.devkit.error_codes

test: $(STAMP) ## Run all tests on real, embedded servers
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	CHAOS_ROUNDS=0 $(BIN)/python -m pytest tests/chaos

fuzz: $(STAMP) ## Read ten minutes of random input through every door; writes docs/fuzzing.md
	$(BIN)/python -m tests.hostile.fuzz

chaos: $(STAMP) ## Break everything again and again, about a quarter of an hour; writes docs/chaos.md
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-5} $(BIN)/python -m pytest tests/chaos

containers: $(STAMP) ## Run the compose file on Docker and break it, ten minutes; see tests/containers/engine.sh
	CONTAINERS=1 $(BIN)/python -m pytest tests/containers

bench: $(STAMP) ## Measure, half an hour on a quiet machine; writes docs/benchmarks.md
	$(BIN)/python -m bench all --write

bench-smoke: $(STAMP) ## Whether the benchmark still runs, a minute or two; measures nothing
	$(BIN)/python -m bench all --quick
	$(BIN)/python -m bench.map
	$(BIN)/python -m bench.scrape --accounts 2000 --scrapes 2

breaker: $(STAMP) ## Simulate fleets of which some accounts are refused, about an hour; writes docs/breaker.md
	$(BIN)/python -m bench.breaker --write

map: $(STAMP) ## Print how large the product is and how far a call travels; WRITE=--write for docs/architecture.md
	$(BIN)/python -m bench.map $(WRITE)

dashboard: $(STAMP) ## Draw the Grafana dashboard, five minutes, needs Prometheus; writes docs/dashboard.svg
	$(BIN)/python -m bench.dashboard

man: $(STAMP) ## Write the manual page of token-worker to build/token-worker.1
	@$(BIN)/python -m bench.man

picture: $(STAMP) ## Draw the demo's table, about two minutes; writes docs/demo.svg
	$(BIN)/python -m bench.picture

check: format lint types contracts test bench-smoke ## Everything CI runs

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/python -m bench.prose

types: $(STAMP)
	$(BIN)/mypy
	@# As a consumer has it: from elsewhere, with the package as it is installed, and without this project's settings; but
	@# with the same error codes, or what mypy has just learnt about all that is imported would be of no use to it.
	cd docs/examples && $(CURDIR)/$(BIN)/mypy --strict --config-file= --cache-dir=$(CURDIR)/.mypy_cache \
		$(CODES:%=--enable-error-code=%) consumer.py

contracts: $(STAMP)
	$(BIN)/lint-imports

lock: ## Lock dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra flower --extra exporter --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev --extra bench --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements-dev.lock

# In environments of their own: what production installs, and the tool that reads it.
sbom: ## Write sbom.cdx.json, the packages of production (CycloneDX)
	$(PYTHON) -m venv --clear .sbom/production
	.sbom/production/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	.sbom/production/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes pip setuptools
	$(PYTHON) -m venv --clear .sbom/tool
	.sbom/tool/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
	.sbom/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json .sbom/production
	rm -rf .sbom

clean: ## Remove .venv and caches; data in .data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
