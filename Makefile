# Two commands for a new user: `make picture` draws one, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
# Programs that tests drive: command:package of Debian
PROGRAMS := postgres:postgresql chromium:chromium
PAGE := src/sfumato/server/page
NO_NODE := npm is missing, of Node 20 or newer; the built page in the package needs none

.PHONY: picture test page page-types site mutants clean

picture: .venv/drawing
	$(BIN)/sfumato generate "a red apple, 3d render" --seed 7 -o apple.png

# The checks two at a time; the processes that the tests start find their modules compiled
test:
	@$(MAKE) --no-print-directory --jobs=2 --output-sync checks
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal
	@command -v npm >/dev/null || echo "Not checked: web/, the sources of the page. $(NO_NODE)"

.PHONY: checks lint types
checks: page-test lint types .venv/programs

lint: .venv/testing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/testing
	$(BIN)/mypy

# The page of `sfumato serve`, built from web/ into the package; needs Node 20 or newer
page: web/node_modules/.installed
	cd web && npm run --silent build

# The types of the page's client, from the server's OpenAPI document
page-types: .venv/testing web/node_modules/.installed
	$(BIN)/python web/schema.py > web/openapi.json
	cd web && npm run --silent schema

# Also that the built files are those of the sources. Who has no Node tests all else; CI must have it
.PHONY: page-test
page-test:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory page-checks; \
	elif [ -n "$$CI" ]; then echo "the page cannot be checked: $(NO_NODE)" >&2; exit 1; \
	else echo "the page is not checked: $(NO_NODE)"; fi

.PHONY: page-checks
page-checks: web/node_modules/.installed
	cd web && npm run --silent check && npm run --silent lint && npm run --silent test
	cd web && npm run --silent build -- --logLevel warn --outDir node_modules/.built
	diff -r web/node_modules/.built $(PAGE)

web/node_modules/.installed: web/package-lock.json
	cd web && npm ci --silent --no-audit --no-fund
	touch $@

# How many of 200 small changes to the code the tests see: see CONTRIBUTING.md
mutants: .venv/testing
	$(INSTALL) '.[mutants]'
	$(BIN)/python tests/mutants.py

# The documentation, for a browser: site/index.html
site: .venv/testing
	$(BIN)/mkdocs build --strict --quiet

SOURCES := pyproject.toml constraints.txt hatch_build.py $(wildcard src/sfumato/nets/*.cpp)
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sfumato needs Python 3.11 or newer; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/drawing: $(SOURCES) | .venv/bin/python
	$(INSTALL) .
	touch $@

.venv/testing: $(SOURCES) | .venv/bin/python
	$(INSTALL) '.[test]'
	touch .venv/drawing $@

# Installed where that needs no password; tests of what is missing are skipped
.venv/programs: | .venv/bin/python
	@PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"; missing=; \
	for each in $(PROGRAMS); do command -v $${each%:*} >/dev/null || missing="$$missing $${each#*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq --no-install-recommends $$missing && missing=; fi; \
	if [ -z "$$missing" ]; then touch $@; else echo "some tests need programs: sudo apt-get install$$missing"; fi

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache web/node_modules
