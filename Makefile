# `make run`: from nothing but python3 and make to the main job's report. `make test`: from nothing to a green suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test check lint slow bench docs clean

run: $(VENV)/.core
	$(BIN)/badnets run

# Whole files go to one process, whose fixtures they share. One process more than cores, since some tests wait; more than four would be
# short of memory on a laptop. Byte code is kept whatever the environment says: hundreds of programs are started by the tests.
test: export PYTHONDONTWRITEBYTECODE =
test: lint
	$(BIN)/python -m pytest --dist loadfile --numprocesses $$($(BIN)/python -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))")

check: lint
	$(BIN)/python -m pytest tests/test_architecture.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check src
	$(BIN)/deptry src

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 3600

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/.docs
	$(BIN)/zensical build --strict

# The stamps make a second call work offline: pip is asked again only when the dependencies change.
$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(INSTALL) --editable '.[bench]'
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) site build dist
