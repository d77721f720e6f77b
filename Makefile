# Each target makes its own environment first, from a Python and the package index that pip is set up for.
# VENV=dir keeps it elsewhere (no spaces); PYTHON=python3.12 picks the Python it is made from.

VENV ?= .venv
WORKERS ?= 2
PACKAGES := planner executor hwprofiles reports

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)
RUN := $(VENV)/bin/python -m
PLAN := $(VENV)/bin/plan
READY := $(VENV)/.ready

.PHONY: demo test check format lint types floors bench bench-placement bench-training accuracy fit budget env clean
.DEFAULT_GOAL := test

demo: $(READY) ## the best plan for Kimi K2 on 10,240 H100s, its proxy trained here, and the report
	$(PLAN) search kimi-k2 --cluster h100-superpod --gpus 10240 --seq-len 4096 --global-batch 10240 \
		--tokens 15.5T --out out/demo
	$(PLAN) run out/demo/plan.json --ranks 4 --steps 20 --check --out out/demo/run
	$(PLAN) compare out/demo/run/proxy.json out/demo/run/record.json --json > out/demo/comparison.json
	$(PLAN) report out/demo/plan.json --comparison out/demo/comparison.json --out out/demo/report.html
	@echo "Report: out/demo/report.html (open it in a browser)"

test: $(READY) ## all tests but the benchmarks
	$(RUN) pytest -q -n $(WORKERS) -p no:benchmark --ignore=tests/bench

check: format lint types floors ## all that needs no test run

format: $(READY)
	$(RUN) ruff format --check .

lint: $(READY)
	$(RUN) ruff check .

types: $(READY)
	$(RUN) mypy --strict $(foreach package,$(PACKAGES),-p $(package))

floors: $(READY) ## who may import whom
	$(VENV)/bin/lint-imports

bench: $(READY) ## how fast it is here
	$(RUN) pytest tests/bench -q -s -p no:xdist

bench-placement: $(READY) ## experts placed beside EPLB's policies; PLACEMENT_TRACES=folder adds real traces
	$(RUN) pytest tests/bench/test_placement.py -q -s -p no:xdist

bench-training: $(READY) ## pruning, quantization, distillation, mixtures: trained, exported, compared (7 minutes)
	$(RUN) pytest tests/bench/test_training.py -q -s -p no:xdist -p no:benchmark

accuracy: $(READY) ## predicted beside published, run by run
	$(PLAN) validate tests/published/runs.yaml --report out/accuracy.html

fit: $(READY) ## refit the mechanisms on published runs: make fit RUNS="runs.yaml sweep.csv"
	@test -n "$(RUNS)" || { echo "Name the files of published runs: make fit RUNS='runs.yaml sweep.csv'" >&2; exit 1; }
	$(RUN) planner.fit --page docs/accuracy.md $(RUNS) planner/data

budget: $(READY) ## what each mechanism of the cost model is worth: make budget RUNS="runs.yaml"
	@test -n "$(RUNS)" || { echo "Name the files of published runs: make budget RUNS='runs.yaml'" >&2; exit 1; }
	$(RUN) planner.fit --budget --page docs/accuracy.md $(RUNS)

env: $(READY) ## only the environment

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv and pip is needed; none was found on the PATH (PYTHON=/path/to/python picks one)." >&2; exit 1; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { echo "Making the environment in $(VENV) (a minute or two)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(VENV)/bin/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev,executor,placement,training]'
	@touch $@

clean: ## what the tools left behind, the environment too
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
