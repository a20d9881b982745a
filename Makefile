# Everything from a fresh Debian or Ubuntu with make, python3 (3.11 to 3.13) and python3-venv.
# `make` alone lists the targets. PYTHON=/path/to/python3.12 chooses another Python.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --require-hashes

# Runs on any python3 from 3.6 on: succeeds on a Python that Relay is tested with.
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
FOUND = $(shell for python in $(CANDIDATES); do \
	"$$python" -c '$(IN_RANGE)' 2>/dev/null && echo "$$python" && break; done)
NO_PYTHON := Relay needs Python 3.11, 3.12 or 3.13: install one of them (apt-get install python3 \
	python3-venv on Debian 12 or 13 and Ubuntu 24.04), or name it: make PYTHON=/path/to/python3.12
NO_VENV = $(FOUND) cannot make virtual environments: apt-get install python3-venv \
	(or the -venv package of that very version)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# What was installed is remembered by stamps, so that a second run installs nothing.
$(VENV)/.made:
	$(if $(FOUND),,$(error $(NO_PYTHON)))
	$(if $(shell "$(FOUND)" -c 'import venv, ensurepip' 2>/dev/null && echo yes),,$(error $(NO_VENV)))
	@"$(FOUND)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made requirements/build.txt requirements/runtime.txt
	@echo "Installing the pinned packages into $(VENV) …"
	@$(INSTALL) -r requirements/build.txt -r requirements/runtime.txt
	@touch $@

$(VENV)/.relay: $(VENV)/.runtime pyproject.toml relay/_straight.c
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.relay requirements/dev.txt requirements/tracing.txt
	@echo "Installing the pinned tools for tests and checks …"
	@$(INSTALL) -r requirements/dev.txt -r requirements/tracing.txt
	@touch $@

$(VENV)/.speech: $(VENV)/.relay requirements/speech.txt
	@$(INSTALL) -r requirements/speech.txt
	@touch $@

.PHONY: demo
demo: $(VENV)/.relay ## one whole call on this machine alone; ARGS="--scenario FILE" for another one
	@$(BIN)/relay demo $(ARGS)

# In three parts: what works, on every core; what mostly waits, four at a time; and what measures real time or claims
# something of the machine's, alone. AND leaves out what has some mark.
TESTS := $(BIN)/python -m pytest --ignore tests/system --ignore tests/campaigns
BESIDE := --numprocesses auto --dist loadgroup -m "not serial and not waiting $(AND)"
WAITING := --numprocesses 4 --dist worksteal -m "waiting $(AND)"
ALONE := -m "serial $(AND)"

.PHONY: test
test: $(VENV)/.dev ## every test that this machine can run; RELAY_TEST_ALL=1: lacking servers fail
	$(TESTS) $(BESIDE) $(ARGS)
	$(TESTS) $(WAITING) $(ARGS)
	$(TESTS) $(ALONE) $(ARGS)

.PHONY: test-system
test-system: $(VENV)/.dev dist/relay dist/.wheel ## the shipped things as a whole: single file, wheel, nodes, alerts
	$(BIN)/python -m pytest tests/system $(ARGS)

.PHONY: campaigns
campaigns: $(VENV)/.dev ## what takes many minutes: thousands of calls in one process, and what it holds on to then
	$(BIN)/python -m pytest tests/campaigns $(ARGS)

.PHONY: test-pure
test-pure: $(VENV)/.dev ## legs, calls and faults as if relay/_straight.c had not been compiled
	$(BIN)/python -m pytest --pure tests/test_framing.py tests/test_listening.py tests/test_legs.py tests/test_call.py \
		tests/test_agent_loss.py tests/test_straight.py tests/matrix tests/e2e/test_kills.py $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.dev ## the tests that take no time, under a minute
	$(TESTS) --numprocesses auto --dist loadgroup -m "not slow" $(ARGS)

.PHONY: check
check: format-check lint types imports audit coverage ## all that must hold before a change is kept

.PHONY: check-deploy
check-deploy: $(VENV)/.dev ## the files in deploy/, each by its own tool; part of `check`, with the tests
	$(BIN)/python -m pytest tests/test_deploy.py $(ARGS)

CODE := relay tests bench scripts

.PHONY: format
format: $(VENV)/.dev ## lay out the code
	$(BIN)/ruff check --select I --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: format-check
format-check: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)

# flake8-async finds what ruff's ASYNC rules do not: unshielded awaits in cleanup, swallowed cancellation. Off: 9xx
# (a checkpoint on every path: the media path decides that itself), 109 (see ruff's list), 114 (which functions may
# be started), 124 (async for the caller's sake: Quart runs a synchronous route in a thread), 127 (another HTTP client).
.PHONY: lint
lint: $(VENV)/.dev ## look for mistakes
	$(BIN)/ruff check $(CODE)
	$(BIN)/flake8-async --disable ASYNC9,ASYNC109,ASYNC114,ASYNC124,ASYNC127 $$(find $(CODE) -name '*.py')

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## the floors: who may import whom
	$(BIN)/lint-imports --no-logo

# In an environment of its own: what it needs is nobody else's business.
AUDIT := $(VENV)/audit

$(AUDIT)/.made: $(VENV)/.made requirements/audit.txt
	@$(BIN)/python -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements/audit.txt
	@touch $@

.PHONY: audit
audit: $(AUDIT)/.made ## known vulnerabilities of the pinned packages, where their list can be reached
	@$(AUDIT)/bin/python scripts/audit.py requirements/runtime.txt requirements/tracing.txt requirements/build.txt

.PHONY: coverage
coverage: $(VENV)/.dev ## the tests, and which branches they reach
	$(TESTS) $(BESIDE) --cov --cov-report= --cov-fail-under=0 $(ARGS)
	$(TESTS) $(WAITING) --cov --cov-append --cov-report= --cov-fail-under=0 $(ARGS)
	$(TESTS) $(ALONE) --cov --cov-append --cov-report=term $(ARGS)

# Packed from an environment that holds the pinned packages and nothing for development.
BINARY := $(VENV)/binary

$(BINARY)/.made: $(VENV)/.made requirements/build.txt requirements/runtime.txt requirements/tracing.txt requirements/binary.txt
	@echo "Installing the pinned packages into $(BINARY) …"
	@rm -rf $(BINARY) && $(BIN)/python -m venv $(BINARY)
	@for file in build runtime tracing binary; do \
		$(BINARY)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes \
			-r requirements/$$file.txt || exit 1; done
	@touch $@

PACKED := $(shell find relay -type f -not -name '*.pyc' -not -name COMMIT) $(wildcard deploy/binary/*)

.PHONY: binary
binary: dist/relay ## dist/relay: one file that needs no Python

# What is packed is a copy, into which the commit is written.
SOURCE := build/source

$(SOURCE)/.made: pyproject.toml README.md LICENSE $(PACKED)
	@rm -rf $(SOURCE) && mkdir -p $(SOURCE)
	@cp -R relay pyproject.toml README.md LICENSE $(SOURCE)
	@{ git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || true; } > $(SOURCE)/relay/COMMIT
	@touch $@

dist/relay: $(BINARY)/.made $(SOURCE)/.made
	@command -v objdump >/dev/null || { echo "PyInstaller needs objdump: apt-get install binutils"; exit 1; }
	@$(BINARY)/bin/python -m pip --quiet --disable-pip-version-check install --force-reinstall --no-index --no-deps \
		--no-build-isolation $(SOURCE)
	@$(BINARY)/bin/pyinstaller --noconfirm --log-level ERROR --distpath dist --workpath build/pyinstaller \
		deploy/binary/relay.spec
	@dist/relay --version

.PHONY: wheel
wheel: dist/.wheel ## dist/relay-….whl, for whoever has a Python

dist/.wheel: $(VENV)/.relay $(SOURCE)/.made
	@mkdir -p dist && rm -f dist/relay-*.whl
	@$(PIP) wheel --no-index --no-deps --no-build-isolation --wheel-dir dist $(SOURCE)
	@touch $@

.PHONY: sbom
sbom: $(VENV)/.relay ## dist/relay.cdx.json: what the product is made of, from the pins
	@mkdir -p dist && $(BIN)/python scripts/sbom.py > dist/relay.cdx.json

# What it needs is checked before anything is built. ARGS=--dry-run checks, and says what would be released.
.PHONY: release
release: $(VENV)/.relay ## dist/release/: wheel, single file, SBOM, changes and checksums of a version; ARGS=--dry-run
	@$(BIN)/python scripts/release.py $(ARGS)

.PHONY: docs
docs: $(VENV)/.relay ## write the pages that are made from the code: settings, HTTP, metrics
	@$(BIN)/python scripts/reference.py

.PHONY: matrix
matrix: $(VENV)/.dev ## play the kill matrix again and write its table into docs/reliability.md
	$(BIN)/python -m tests.matrix

.PHONY: speech
speech: $(VENV)/.speech ## render the scenarios' speech again (espeak-ng)
	$(BIN)/python -m relay.simulator.speech

.PHONY: clips
clips: $(VENV)/.speech ## render the relay's own sentences again (espeak-ng)
	$(BIN)/python scripts/clips.py

.PHONY: lock
lock: $(VENV)/.made ## choose and pin the newest packages that requirements/*.in allow
	@$(PIP) install uv
	UV=$(CURDIR)/$(BIN)/uv requirements/lock

.PHONY: autobahn
autobahn: $(VENV)/.relay ## the Autobahn suite against our leg; PYTHON27=/path/to/python2.7
	$(BIN)/python scripts/autobahn.py $(PYTHON27)

.PHONY: clean
clean: ## remove what these targets made, not what the service wrote
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# What the peers need stands under $(PEERS), apart from the relay's own packages. Without Node, gcc or a network a
# peer is left out, and the findings say so. NODE_RATIO: the highest that CI accepts, with slack for a noisy machine.
PEERS := $(VENV)/peers
NODE_RATIO := 1.1
PYTHON_PEERS := $(PEERS)/fastapi/.made $(PEERS)/pipecat/.made

$(PYTHON_PEERS): $(PEERS)/%/.made: $(VENV)/.dev bench/peers/%.txt
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
	@$(@D)/bin/pip --quiet --disable-pip-version-check install --require-hashes -r bench/peers/$*.txt >&2
	@touch $@

$(PEERS)/node/.made: $(VENV)/.dev bench/peers/node/package.json
	@mkdir -p $(@D) && cp bench/peers/node/package.json $(@D)
	@cd $(@D) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error >&2
	@touch $@

.PHONY: bench
bench: ## this relay beside its peers, into docs/performance.md; up to a quarter of an hour
	@$(MAKE) --no-print-directory --keep-going $(PYTHON_PEERS) $(PEERS)/node/.made >&2 || true
	@$(BIN)/python -m bench.compare --tools $(PEERS) --write $(ARGS)

.PHONY: bench-quick
bench-quick: ## this relay beside Node within a minute; one JSON object with node_ratio
	@$(MAKE) --no-print-directory $(PEERS)/node/.made >&2 || true
	@$(BIN)/python -m bench.compare --tools $(PEERS) --quick --at-most $(NODE_RATIO) $(ARGS)
