# `make bench` runs the main job, `make test` everything that CI checks. Both set up what is missing and may be repeated.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# The tests start hundreds of processes: each would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench test lint tests venv schema clean

bench: venv
	$(BIN)/pytest bench/ --benchmark-only

test: lint tests

# One worker more than there are cores: tests of servers mostly wait. In the order of directories, so that the short
# files of unit/ come last and fill what is left of each worker's time.
tests: venv
	$(BIN)/pytest tests/ -n $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: venv
	$(BIN)/enginebench schema --out scenarios/schema.json

venv: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml scripts/find-python
	@echo "Setting up $(VENV) (about two minutes the first time)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	    { python="$$(PYTHON='$(PYTHON)' scripts/find-python)" && "$$python" -m venv --clear $(VENV); }
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
