# The commands that people and CI use. Each does all of its own set-up.
PYTHON := .venv/bin/python
FUZZ_SECONDS ?= 3600
# Where it is set, as in some containers, every worker and every process of a test compiles all that it reads.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-dev compile asterisk demo test unit e2e other-debians docs lint format lock notice wheel serve check agent bench soak fuzz audit hangups compose-test cluster-test clean

help:  ## List these commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup:  ## Make .venv for using it: serve, check, demo
	@sh scripts/bootstrap.sh

setup-dev:  ## Make .venv for working on it: tests, types, documentation
	@sh scripts/bootstrap.sh dev

compile: setup  ## Compile what every frame goes through (half a minute, once; needs gcc and Python's headers)
	@$(PYTHON) -m scripts.compiled

asterisk: setup  ## Fetch the lab's Asterisk, unless there is one already
	@$(PYTHON) -m lab.asterisk fetch

# Who brings the caller: Asterisk; with TWILIO=1 or CUSTOM=1 somebody who needs none.
DEMO_WAY = $(if $(CUSTOM),custom,$(if $(TWILIO),twilio,asterisk))

demo: $(if $(CUSTOM)$(TWILIO),setup,asterisk)  ## Place a real call through a real Asterisk to the practice agent (MEDIA_TRANSPORT=websocket: over chan_websocket; TWILIO=1: by Media Streams; CUSTOM=1: by a dialer of one's own)
	@.venv/bin/ari-app demo --way $(DEMO_WAY)

# Each worker reads all that it is given, for 3 s of a core, so it is given its own folders alone. With an Asterisk
# a test mostly waits: three a core. There are ports for 22 of the lab's Asterisks, and a worker may need two.
TEST_WORKERS ?= $$((2 * $$(nproc)))
E2E_WORKERS ?= $$((3 * $$(nproc) < 11 ? 3 * $$(nproc) : 11))
# The tests with an Asterisk are given out by tests/e2e/conftest.py.
PYTEST = $(PYTHON) -m pytest -n
UNIT_TESTS = $(PYTEST) $(TEST_WORKERS) --dist worksteal tests/unit tests/fuzz
# Calls go by the clock: what fails among others (1 is pytest's code for it) is tried once more, without them.
IN_E2E = tests/e2e --ignore tests/e2e/test_compose.py
E2E_TESTS = { $(PYTEST) $(E2E_WORKERS) --dist loadscope --no-loadscope-reorder $(IN_E2E) || \
	{ [ $$? = 1 ] && echo "Again, one by one:" && $(PYTHON) -m pytest --last-failed --last-failed-no-failures none $(IN_E2E); }; }

# What tries the compiled modules; `python -m scripts.compiled` says it where there is no compiler.
COMPILED_TESTS = ARI_APP_COMPILED=1 $(PYTEST) $(TEST_WORKERS) --dist worksteal tests/unit/audiosocket tests/unit/linekit \
	tests/unit/audio tests/unit/call/test_hearing.py tests/unit/call/test_sound.py tests/unit/agent/elevenlabs \
	tests/unit/line tests/unit/process/test_compiled.py

# Calls go by the clock, so nothing runs beside the tests with an Asterisk; all else runs side by side.
test: setup-dev  ## Format, types and all tests, also those with the real Asterisk (BESIDE: a command to run beside lint and unit tests)
	@mkdir -p .cache; $(or $(BESIDE),true) >.cache/beside.log 2>&1 & beside=$$!; \
		trap 'kill $$beside $$compose $$making 2>/dev/null; exit 130' INT TERM; code=0; \
		$(MAKE) --no-print-directory lint || { kill $$beside 2>/dev/null; wait; exit 1; }; \
		$(PYTHON) -m pytest tests/e2e/test_compose.py >.cache/compose.log 2>&1 & compose=$$!; \
		$(MAKE) --no-print-directory asterisk compile >.cache/making.log 2>&1 & making=$$!; \
		$(UNIT_TESTS) || code=1; \
		wait $$making || code=1; cat .cache/making.log; \
		[ ! -d ari_app/_compiled ] || $(COMPILED_TESTS) || code=1; \
		wait $$compose || code=1; cat .cache/compose.log; \
		wait $$beside || code=1; cat .cache/beside.log; exit $$code
	$(E2E_TESTS)

unit: setup-dev  ## The tests that need no Asterisk
	$(UNIT_TESTS)

e2e: setup-dev asterisk  ## The tests with the real Asterisk
	$(E2E_TESTS)

other-debians: setup  ## Lint and unit tests in bare roots of Debian 13 (Python 3.13) and forky (3.14)
	@$(PYTHON) -m scripts.other_debians

compose-test: setup  ## Build the lab in Docker, hold calls through it, take it down
	@$(PYTHON) -m lab.compose_test

cluster-test: setup-dev asterisk  ## Three machines, two Asterisks, Valkey, PostgreSQL and HAProxy in networks of their own; kill and cut off each (root; CALLS=40)
	@[ -x .cache/cluster/usr/sbin/haproxy ] || command -v haproxy >/dev/null || sh scripts/cluster_packages.sh || true
	@$(PYTHON) -m tests.cluster --calls $(or $(CALLS),40)

hangups: setup-dev asterisk  ## Hang up 1,000 calls at every moment that there is, on the real Asterisk
	ARI_APP_HANGUPS=1000 $(PYTHON) -m pytest -s tests/e2e/test_hangups.py

lint: setup-dev  ## Format, lint, types, licences and documentation, without changing anything
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	@# Beside it, the tests are read once: otherwise each of their workers would compile them for itself.
	$(PYTHON) -m pytest --collect-only -qq tests >/dev/null 2>&1 & reading=$$!; \
		$(PYTHON) -m mypy; code=$$?; wait $$reading; exit $$code
	.venv/bin/lint-imports --no-cache --no-logo
	$(PYTHON) -m scripts.third_party --check
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

docs: setup-dev  ## Write the settings page anew, and the site into site/
	$(PYTHON) -m scripts.settings_page
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict
	@echo "site/index.html"

format: setup-dev  ## Put the code into its form
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

COMPILE = $$(command -v uv || echo .cache/uv/bin/uv) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --quiet

lock: setup-dev  ## Write requirements.lock and the other lock files anew from what pyproject.toml and lab/pyproject.toml ask for
	$(COMPILE) pyproject.toml lab/pyproject.toml --extra otel --group dev -o requirements.lock
	$(COMPILE) pyproject.toml --extra otel -c requirements.lock -o deploy/serve.lock
	$(COMPILE) pyproject.toml lab/pyproject.toml --extra otel -c requirements.lock -o deploy/lab.lock
	printf 'hatchling\nmypy\nsetuptools\n' | $(COMPILE) - -c requirements.lock -o deploy/build.lock
	echo uv | $(COMPILE) - -o scripts/uv.lock
	$(PYTHON) -m scripts.third_party

notice: setup-dev  ## Write THIRD-PARTY.md anew: whose work is in the packages and images
	$(PYTHON) -m scripts.third_party

wheel: compile  ## Build ari-app's wheel and the lab's into dist/, to install elsewhere
	@rm -f dist/ari_app-*.whl dist/ari_app_lab-*.whl
	@$(PYTHON) -m hatchling build -t wheel
	@cd lab && ../$(PYTHON) -m hatchling build -t wheel -d ../dist

serve: compile  ## Take calls, with the settings of .env
	@.venv/bin/ari-app serve

check: setup  ## Find out what is wrong with a set-up
	@.venv/bin/ari-app check

agent: setup  ## Run the practice agent alone
	@.venv/bin/ari-app agent

bench: asterisk compile  ## Measure everything (45 minutes; .venv/bin/ari-app bench --help)
	@.venv/bin/ari-app bench all

fuzz: setup-dev  ## Try the parsers on an hour of odd inputs (FUZZ_SECONDS=3600)
	$(PYTHON) -m tests.fuzz --seconds $(FUZZ_SECONDS) --corpus .cache/fuzz

audit: setup-dev  ## Look for known vulnerabilities in what is locked; needs the internet
	$(PYTHON) scripts/audit.py

soak: asterisk compile  ## Mixed calls and faults for MINUTES (10), and what is left over
	@.venv/bin/ari-app soak --minutes $(or $(MINUTES),10) $(SOAK)

clean:  ## Remove what the commands above have made here
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-output bench-output dist ari_app/_compiled
