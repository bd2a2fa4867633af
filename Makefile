# Each target creates .venv and installs what it needs; no other step.
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
TESTS ?= tests
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
PYTEST = $(BIN)/python -m pytest
FAULT_TESTS ?= tests/collector/storage tests/collector/ingest tests/collector/test_pauses.py \
	tests/collector/compute/test_coverage.py tests/collector/compute/test_packing.py tests/e2e/test_restored.py \
	tests/faults/test_model.py tests/faults/test_progress_model.py tests/faults/test_moves.py \
	tests/faults/test_kill.py tests/faults/test_disk.py tests/faults/test_labels.py

.PHONY: demo test test-system test-loaded faults fuzz coverage bench bench-check bench-peers lint docs site clean

demo: .venv/collector
	$(BIN)/zmon demo $(ARGS)

# The tiers unit and integration, two workers for each core, since tests mostly wait: nine in ten, in some minutes.
test: .venv/dev
	$(PYTEST) -m "not system" -n $(WORKERS) --dist loadgroup $(TESTS) $(ARGS)

# The rest, likewise: faults, browser, frameworks, servers, clusters, examples. A test that fails is run once more,
# and listed as rerun.
test-system: .venv/dev
	$(PYTEST) -m system -r aR --reruns 1 -n $(WORKERS) --dist loadgroup $(TESTS) $(ARGS)

# Both while two busy loops share the cores: a slow machine is no reason to fail.
test-loaded: .venv/dev
	$(BIN)/python -m tests.loaded $(MAKE) --keep-going test test-system

# Every fault at full length: 50 kills, a million mutants, a thousand publishers, 1.5 GB windows, a minute of
# signals, ten of all forms, half an hour of everything. Takes an hour.
faults: .venv/dev
	ZMON_FAULTS=1 ZMON_REQUIRE_ALL=1 $(PYTEST) tests/faults tests/host -s $(ARGS)

# Each decoder of bytes from a peer for so many seconds, by atheris where pip has it for this Python, else at random.
SECONDS ?= 60
fuzz: .venv/dev
	-$(PIP) atheris
	$(BIN)/python -m tests.fuzz $(SECONDS) $(DECODERS)

# Lines and branches of what keeps, restores and settles rows, as far as tests of faults reach them, also in collectors
# that they start. A process that is killed loses what it reached.
coverage: .venv/dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadgroup $(FAULT_TESTS) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: .venv/dev
	$(BIN)/python -m tests.bench $(ARGS)

# Ratios of a quick run against those committed.
bench-check: .venv/dev
	$(BIN)/python -m tests.bench.check

# Others on the same rows, each in an environment of its own under .venv-peers.
bench-peers: .venv/dev
	$(BIN)/python -m tests.bench.peers $(ARGS)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive zmon collector plugins

# The pages that are generated from the code; a test fails when they are stale.
docs: .venv/dev
	$(BIN)/python -m tests.pages

site: .venv/dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-peers dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit("zmon needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	touch $@

.venv/collector: .venv/pip pyproject.toml
	$(PIP) --editable '.[collector]'
	touch $@

.venv/dev: .venv/collector tests/requirements.txt
	$(PIP) --requirement tests/requirements.txt
	touch $@
