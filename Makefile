# Every target brings its own set-up: .venv is made on first use and again when pyproject.toml or constraints.txt change.
# PYTHON=/path/to/python3.11 picks the Python that .venv is made from.

BIN := .venv/bin
STAMP := .venv/.set-up-$(shell { pwd; cat pyproject.toml constraints.txt tools/setup.sh; } | git hash-object --stdin)
BENCHMARKS := benchmarks/kernels.py benchmarks/capture.py benchmarks/edits.py benchmarks/monitor.py
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# Processes that share the tests, one thread each.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n > 8 ? 8 : n)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format lab docs bench chromium clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## make .venv with everything in it (the other targets do this by themselves)

$(STAMP):
	@tools/setup.sh $(STAMP)

demo: setup ## the main job on the embedded default model: scan a real text, write runs/demo/report.html
	$(BIN)/interp demo --out runs/demo

test: setup chromium ## fast and medium tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal

test-slow: setup chromium ## slow tests; started again, it leaves out those that passed on the same sources
	$(BIN)/python -m pytest -m slow --skip-passed

lint: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: setup ## JupyterLab on the tour
	$(BIN)/jupyter lab $(AS_ROOT) notebooks/00_tour.ipynb

docs: setup ## run the notebooks and render them to docs/_build
	INTERP_STATIC=1 PLOTLY_RENDERER=notebook $(BIN)/jupyter nbconvert --to html --execute --ExecutePreprocessor.store_widget_state=False \
		--output-dir docs/_build notebooks/*.ipynb

bench: setup ## speed and memory beside the alternatives
	@status=0; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || status=$$?; done; exit $$status

chromium: # for the browser tests
	@tools/chromium.sh

clean: ## remove .venv and everything that was built or cached in the checkout
	rm -rf .venv build dist docs/_build .pytest_cache .ruff_cache .hypothesis
	find interp kernels tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
