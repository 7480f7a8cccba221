# make train / make test set up everything themselves, in .venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# one thread is fastest for networks of this size, and makes runs repeatable
export OMP_NUM_THREADS ?= 1

.PHONY: train test lint type format docs clean

train: $(VENV)/.installed
	$(BIN)/python -m benchmarks.train --env Hopper-v5 --steps 5e5 --seed 1 --eval-freq 50000 \
		--progress --at-least 800 --out runs/train

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2

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

# torch first: a later step must not replace the build that was chosen for this machine
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable ".[extra,zoo,atari,envpool,export,dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) runs docs/_build
