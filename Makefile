# Two commands for a new user: `make picture` draws one, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: picture test site clean

picture: .venv/drawing
	$(BIN)/sfumato generate "a red apple, 3d render" --seed 7 -o apple.png

test: .venv/testing
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

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache
