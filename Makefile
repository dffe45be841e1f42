# make run     the main job: a simulated cell, a recipe, its batch record
# make test    all tests            make check   lint, types, layers
# make bench   the benchmarks       make lock    write the lock files anew
# make mutants   small faults in the engine and the language, and how many of them the tests find (hours; not in CI)
# make environment    what edge needs, in .venv, and nothing run: for /opt/edge
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run environment test check lint types layers bench mutants lock clean

run: $(VENV)/run.stamp
	@$(BIN)/edge run recipes/bottling/cell.yaml rinse-and-fill --simulate --answer label_ok=yes

environment: $(VENV)/run.stamp

test: $(VENV)/dev.stamp
	@tests/services
	@$(BIN)/pytest -n 2 --dist loadfile

check: lint types layers

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	@$(BIN)/pyright

layers: $(VENV)/dev.stamp
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	@tests/services bench
	@$(BIN)/python -m tests.bench

mutants: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.mutants

$(VENV)/run.stamp: requirements.lock pyproject.toml
	@tests/environment $(PYTHON) $(VENV) requirements.lock
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml
	@tests/environment $(PYTHON) $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/run.stamp

lock:
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
		--group build pyproject.toml -o requirements.lock
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-annotate --no-header \
		--group build --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build
