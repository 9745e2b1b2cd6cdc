# The two commands are `make demo` and `make test`; each sets up what it needs. `make help` lists the others.
# Needs Python 3.11 or newer, make, and a package index (pip's own settings apply). Another interpreter:
# `make test PYTHON=/path/to/python3.12`. More arguments for a target's command: `make demo ARGS="--dtype float64"`.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
  $$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ARGS ?=

PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --disable-pip-version-check --constraint constraints.txt
# A plain path, not setuptools' import hook, which every start of Python would pay for (30 ms of a NumPy cold start).
EDITABLE := --no-build-isolation --config-settings editable_mode=compat --editable
# One BLAS thread for each of the test workers, or they fight over the cores. For the demo, whose products are small and
# whose engines take turns: two threads a library took 9 times the processor time on two busy cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check report mutants coverage bench docs clean distclean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 12

demo: $(VENV)/.installed ## train the same small ViT in both engines on real digits, and compare
	$(ONE_THREAD) $(PY) -m demo $(ARGS)

test: $(VENV)/.installed ## every test: parity of the engines, and the rest
	$(ONE_THREAD) $(PY) -m pytest -n auto --maxprocesses 8 $(ARGS)

check: $(VENV)/.installed ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

report: $(VENV)/.installed ## the parity report: error of every stage, both engines
	$(PY) -m parity_tests $(ARGS)

mutants: $(VENV)/.installed ## change one thing in an engine, one at a time: the parity tests must notice (hours; resumable)
	$(ONE_THREAD) $(PY) -m parity_tests.mutants $(ARGS)

coverage: $(VENV)/.installed ## every branch of numpy_vit is taken by the parity tests, on ten examples a property
	$(ONE_THREAD) HYPOTHESIS_PROFILE=smoke $(PY) -m pytest parity_tests -n auto --maxprocesses 8 --cov=numpy_vit --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-fail-under=100 $(ARGS)

bench: $(VENV)/.installed ## time both engines, stage by stage and whole
	$(PY) -m benchmarks $(ARGS)

docs: $(VENV)/.installed-docs ## the study site, in build/site
	$(PY) docs/gen_pages.py build/docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo "Open build/site/index.html. To search as well: $(PY) -m http.server --directory build/site"

clean: ## remove what was built; keeps runs/ and the environment
	rm -rf build dist htmlcov demo_out .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## and the environment
	rm -rf $(VENV)

# The stamps are touched last: an interrupted or broken installation has none, and is mended by the next call.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module was found." \
	  "Install one (on Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --quiet setuptools
	$(INSTALL) $(EDITABLE) '.[test,bench,check]'
	@$(PY) -m compileall -q vit_common numpy_vit torch_vit
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) $(EDITABLE) '.[docs]'
	@touch $@
