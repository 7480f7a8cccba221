# make train / make test set up everything themselves, in .venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# one thread is fastest for networks of this size, and makes runs repeatable
export OMP_NUM_THREADS ?= 1

.PHONY: train test test-lowest lint type format docs package clean

train: $(VENV)/.installed
	$(BIN)/python -m benchmarks.mujoco --env Hopper-v5 --seed 0 --eval-freq 50000 \
		--progress --at-least 3000 --out runs/train

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2

# the lowest versions that pyproject.toml allows, in an environment of their own; exports need a newer torch than the rest
test-lowest: .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest -n 2 --ignore tests/export --ignore tests/command_line/test_export.py \
		--deselect "tests/test_docs.py::test_examples_run[export.md]"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.installed
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

package: $(VENV)/.installed-build
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# torch first: a later step must not replace the build that was chosen for this machine
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable ".[extra,zoo,atari,envpool,export,dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

$(VENV)/.installed-build:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet build twine
	touch $@

.venv-lowest/.installed: pyproject.toml
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip --disable-pip-version-check install --quiet uv
	.venv-lowest/bin/uv pip install --python .venv-lowest --resolution lowest-direct --only-binary box2d-py \
		--editable ".[extra,zoo,atari,envpool,dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest dist runs docs/_build
