# Every target sets up its own .venv in this folder when requirements.txt or pyproject.toml changed.
# With another Python: make test PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.set-up
RUN := $(VENV)/bin/python

.PHONY: help demo test verify lint format clean

help:
	@echo "make demo     run the whole chain on simulated runs, no data needed"
	@echo "make test     all checks"
	@echo "make verify   the long checks and the benchmarks"
	@echo "make lint     style, types and import contract only"
	@echo "make format   let ruff rewrite the style"
	@echo "make clean    remove the environment and everything made"

demo: $(STAMP)
	$(VENV)/bin/tier0 demo

test: $(STAMP)
	$(RUN) -m pytest -q -n 2 --no-loadscope-reorder

verify: $(STAMP)
	$(RUN) -m pytest -q -m verify --hypothesis-profile=verify
	@set -e; for benchmark in $(wildcard benchmarks/[a-z]*.py); do echo "$$benchmark"; $(RUN) "$$benchmark"; done

lint: $(STAMP)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

format: $(STAMP)
	$(RUN) -m ruff check --fix-only
	$(RUN) -m ruff format

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp holds the folder's name: scripts of a virtual environment break when the folder moves.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "Setting up $(VENV), once"; $(PYTHON) -m venv --clear $(VENV); }
	@$(RUN) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(RUN) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo "$(CURDIR)" > $(STAMP)
