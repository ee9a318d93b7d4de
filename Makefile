# On a fresh Debian or Ubuntu machine: `make demo` shows deploykit at work, `make test` proves it. Both install what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=DEPLOYKIT_TEST_PREFIX)
APT := $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
# Test hosts of this run, so that only these are cleaned up after it. At most 6 letters.
export DEPLOYKIT_TEST_PREFIX ?= t

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-fast test-hosts test-slow test-vagrant test-vagrant-job lint bench bench-full clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3-venv"; $(APT) python3-venv ca-certificates >/dev/null; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "installing deploykit into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	@echo "installing the tools of the tests"
	@command -v curl >/dev/null || { $(APT) curl ca-certificates >/dev/null; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/.installed ## Boot a throw-away host, deploy four Django apps to it, prove it
	@$(SUDO) $(BIN)/python examples/demo.py

demo-down: $(VENV)/.installed ## Throw the demo's host away
	@$(SUDO) $(BIN)/fab sandbox down

test: lint test-fast test-hosts test-vagrant-job ## Everything, real hosts included (root on Debian or Ubuntu)

lint: $(VENV)/.developed ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-fast: $(VENV)/.developed ## Tests that need no host
	$(BIN)/pytest tests/unit tests/agent tests/examples -n 2

test-hosts: $(VENV)/.developed ## Tests on real machines, booted here
	$(SUDO) $(BIN)/python -c 'from deploykit import sandbox; sandbox.prepare(print)'
	$(SUDO) $(BIN)/pytest tests/hosts -n 3 --dist loadfile --durations 15

test-slow: $(VENV)/.developed ## Other people's large projects and 200 faults on real machines (two hours, much memory and disk)
	$(SUDO) $(BIN)/python -c 'from deploykit import sandbox; sandbox.prepare(print)'
	$(SUDO) $(BIN)/pytest tests/hosts/slow --durations 15

test-vagrant-job: $(VENV)/.developed ## The main job on one Vagrant machine, in Docker
	$(SUDO) vagrant/with-docker $(BIN)/pytest tests/hosts/test_vagrant.py --hosts=vagrant --durations 5

test-vagrant: $(VENV)/.developed ## All tests of test-hosts, on Vagrant machines in Docker
	$(SUDO) vagrant/with-docker $(BIN)/pytest tests/hosts --hosts=vagrant -n 2 --dist loadfile --durations 15

bench: $(VENV)/.developed ## Measure beside Ansible and pyinfra, in short (under 15 minutes): benchmarks/RESULTS.md
	$(SUDO) $(BIN)/python benchmarks/run.py

bench-full: $(VENV)/.developed ## Measure everything (about 75 minutes)
	$(SUDO) $(BIN)/python benchmarks/run.py --full

clean: ## Remove what was made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
