# make venv    a virtual environment with all that the demo and the tests need
# make demo    faces, an inversion and edits of one photograph in demo/index.html; PHOTO=my.jpg for one of your own
# make test    lint, type check and every test
# make bench   the speed of synthesis on this machine

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
JOBS   ?= 2
PHOTO  ?=
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
# One thread per process: two threads of one process on two busy cores are slower than two processes.
THREADS := OMP_NUM_THREADS=1

.PHONY: venv demo test lint bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev,train,heif,onnx]"
	touch $@

demo: venv
	$(THREADS) $(BIN)/limn demo $(if $(PHOTO),"$(PHOTO)") --out demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(THREADS) $(BIN)/python -m pytest -n $(JOBS)

bench: venv
	$(BIN)/python benchmarks/synthesis.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
