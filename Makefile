# make demo   evaluate the embedded model in both directions; prints the gap table and the page to open
# make test   the test suite, but for tests of more than ten seconds or so
# make test-slow   those
# make lint   ruff and pyright
# make recipes-smoke   every recipe for a few steps
# make three-papers   the core of the three papers on the embedded model, as one page
#
# Each target makes .venv and installs into it when needed, and only then.

.DEFAULT_GOAL := demo
.PHONY: demo test test-slow lint recipes-smoke three-papers

# Any Python >= 3.11.
PYTHON ?= python3

# The version the shipped numbers were measured with, out of the range in pyproject.toml. From PyPI, torch on Linux
# brings GPU libraries of several GB; README.md says how to put a CPU build of it into .venv first, which is then kept.
TORCH ?= torch==2.13.0

DEMO_UNITS ?= 50

INSTALLED := .venv/.installed

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "unigap needs Python >= 3.11; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet '$(TORCH)'
	.venv/bin/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	.venv/bin/unigap eval --num-units $(DEMO_UNITS) --out runs/demo --overwrite

test: $(INSTALLED)
	.venv/bin/python -m pytest -m 'not slow' $(ARGS)

test-slow: $(INSTALLED)
	.venv/bin/python -m pytest -m slow $(ARGS)

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

SMOKE := runs/smoke

recipes-smoke: $(INSTALLED)
	rm -rf $(SMOKE)
	.venv/bin/python recipes/emergence.py --smoke --out $(SMOKE)/emergence
	.venv/bin/python recipes/gvu.py --smoke --out $(SMOKE)/gvu --start $(SMOKE)/emergence/training/snapshots/000004
	.venv/bin/python recipes/gvu_understanding.py --smoke --runs $(SMOKE)/gvu --start $(SMOKE)/emergence/training/snapshots/000004
	.venv/bin/python recipes/stars_math.py --smoke --out $(SMOKE)/stars-math
	.venv/bin/python recipes/stars_mapping_curriculum.py --smoke --out $(SMOKE)/stars-mapping
	.venv/bin/python recipes/knowledge_inject.py --smoke --out $(SMOKE)/inject
	.venv/bin/python recipes/knowledge_edit.py --smoke --out $(SMOKE)/edit
	.venv/bin/python recipes/latent_cot.py --smoke --out $(SMOKE)/latent-cot
	.venv/bin/python recipes/architectures.py --smoke --models tiny --out $(SMOKE)/architectures
	.venv/bin/python recipes/three_papers.py --smoke --jobs 1 --out $(SMOKE)/three-papers

three-papers: $(INSTALLED)
	.venv/bin/python recipes/three_papers.py $(ARGS)
