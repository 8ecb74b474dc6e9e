# Two commands for a new user: `make picture` draws one, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
# Programs that tests drive: command:package of Debian
PROGRAMS := postgres:postgresql

.PHONY: picture test site clean

picture: .venv/drawing
	$(BIN)/sfumato generate "a red apple, 3d render" --seed 7 -o apple.png

test: .venv/testing .venv/programs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

# The documentation, for a browser: site/index.html
site: .venv/testing
	$(BIN)/mkdocs build --strict --quiet

.venv/drawing: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sfumato needs Python 3.11 or newer; say which: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/testing: .venv/drawing
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# Installed where that needs no password; tests of what is missing are skipped
.venv/programs: .venv/drawing
	@PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"; missing=; \
	for each in $(PROGRAMS); do command -v $${each%:*} >/dev/null || missing="$$missing $${each#*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq --no-install-recommends $$missing && missing=; fi; \
	if [ -z "$$missing" ]; then touch $@; else echo "some tests need programs: sudo apt-get install$$missing"; fi

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache
