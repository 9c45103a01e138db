# The two commands: `make demo` and `make test`. `make help` lists the others.
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
DEMO := demo

# Two test processes on two cores: one thread each, or they get in each other's way.
# Tests compute on the CPU, also where there is a GPU, but for those of `make test-gpu`.
# Plugins are named: to find them, pytest would prepare all modules of five packages in each process.
PYTEST := env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= \
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
TEST_PROCESSES := 2
# Each process begins with half of the tests in order, so that few fixtures are made by both.
SHARED := -p xdist -p hypothesispytest -n $(TEST_PROCESSES) --dist worksteal

PIP_INSTALL := -m pip install --disable-pip-version-check $(if $(CI),--quiet)
PLUGINS := $(patsubst %/pyproject.toml,./%,$(wildcard plugins/*/pyproject.toml))
PLUGIN_FILES := $(shell find plugins -type f \( -name '*.py' -o -name '*.toml' \) 2>/dev/null)

# Use the first Python that is new enough and can make environments; PYTHON=... chooses. An
# environment that works is kept: pip then only adds what is missing.
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
MAKE_VENV = @if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
  found=; for candidate in $(CANDIDATES); do \
    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then found="$$candidate"; break; fi; \
  done; \
  if [ -z "$$found" ]; then \
    echo "metaloss needs Python 3.11 or newer with its venv module; tried: $(CANDIDATES)." >&2; \
    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or say where it is:" >&2; \
    echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; \
  fi; \
  echo "Making $(1) with $$found. PyTorch alone is some gigabytes: this takes minutes."; \
  rm -rf $(1); "$$found" -m venv $(1); \
  fi

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed ## install, then learn a loss on digits with half of the labels wrong
	$(BIN)/metaloss compare --study demo $(DEMO)/
	@echo
	@echo "table:   $(CURDIR)/$(DEMO)/table.md"
	@echo "picture: $(CURDIR)/$(DEMO)/comparison.png"

.PHONY: test
test: $(VENV)/.plugins ## install, then check format, lint, types, layers, docs and run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m zensical build --strict --clean
	$(PYTEST) $(BIN)/pytest $(SHARED) $(ARGS)

.PHONY: test-gpu
test-gpu: $(VENV)/.plugins ## run the tests of a GPU, on a machine that has one
	$(BIN)/pytest -m gpu $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.plugins ## kill runs, fill disks, try words at random: the long campaigns, about an hour
	$(PYTEST) $(BIN)/pytest $(SHARED) -m faults $(ARGS)

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed ## run the tests with the lowest versions that are allowed
	$(PYTEST) $(LOWEST)/bin/pytest $(SHARED) $(ARGS)

.PHONY: bench
bench: $(VENV)/.plugins ## measure what steps cost, in pairs; on an idle machine, the better part of an hour
	$(BIN)/python -m benchmarks --page bench.md $(ARGS)

.PHONY: docs
docs: $(VENV)/.installed ## serve the documentation at http://127.0.0.1:8000
	$(BIN)/python -m zensical serve

.PHONY: format
format: $(VENV)/.installed ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: install
install: $(VENV)/.installed ## make .venv with everything in it

.PHONY: clean
clean: ## remove what make made: environments, the demo's runs, built docs, caches
	rm -rf $(VENV) $(LOWEST) $(DEMO) site build dist bench.md bench.json
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say that an installation went through to its end.
$(VENV)/.installed: pyproject.toml
	$(call MAKE_VENV,$(VENV))
	$(BIN)/python $(PIP_INSTALL) --upgrade pip
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev,docs]'
	@touch $@

# As a stranger would: built and installed, not editable.
$(VENV)/.plugins: $(VENV)/.installed $(PLUGIN_FILES)
	$(if $(PLUGINS),$(BIN)/python $(PIP_INSTALL) $(PLUGINS))
	@touch $@

$(LOWEST)/.installed: pyproject.toml $(PLUGIN_FILES)
	$(call MAKE_VENV,$(LOWEST))
	$(LOWEST)/bin/python $(PIP_INSTALL) uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --upgrade --compile-bytecode \
	  --resolution lowest-direct --editable '.[dev]' $(PLUGINS)
	@touch $@
