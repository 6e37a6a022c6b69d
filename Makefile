# Two commands set up everything: `make demo` and `make test`. Each installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Public traces, where someone has them; tests and studies that need them skip without.
ifneq ($(wildcard ../shared/traces),)
export INFERX_TRACE_DIR ?= $(abspath ../shared/traces)
endif

.PHONY: help demo test lint type parts bench results clean
help:
	@echo "make demo     replay a bundled trace under five policies, write demo-run/report.html"
	@echo "make test     lint, type check, test"
	@echo "make bench    run the benchmarks, each beside its floor"
	@echo "make results  regenerate docs/results (needs INFERX_TRACE_DIR; root and \`make parts\` for restore.md, faults.md and prediction.md; nginx and wrk for control-plane.md)"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/inferx replay traces/demo.parquet --cluster traces/demo-cluster.toml --functions auto:small \
	  --policy dedicated --policy scale-to-zero --policy inferx-reference --policy serverlessllm --policy default \
	  --against inferx-reference --seed 1 --jobs 2 --out demo-run --overwrite

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: $(INSTALLED)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

# Real containerd, runc, CRIU and etcd for the tests of the whole system, where they can be installed.
parts:
	tools/system-parts

# Every line and branch of the kernel is met by a test; policies may have a few that are not.
test: export INFERX_CRIU := $(or $(INFERX_CRIU),$(abspath build/criu/criu))
test: lint type parts
	$(BIN)/pytest -q -n 2 --dist worksteal --cov=inferx.core --cov=inferx.policy --cov-report=
	$(BIN)/coverage report --include='inferx/core/*' --skip-covered --show-missing --fail-under=100
	$(BIN)/coverage report --include='inferx/policy/*' --skip-covered --show-missing --fail-under=95

bench: $(INSTALLED)
	$(BIN)/pytest benchmarks -q --benchmark-columns=min,median,rounds --benchmark-sort=name

results: export INFERX_CRIU := $(or $(INFERX_CRIU),$(abspath build/criu/criu))
results: $(INSTALLED)
	$(BIN)/python -m studies.policies
	$(BIN)/python -m studies.policies.catalogue
	$(BIN)/python -m studies.traces
	$(BIN)/python -m studies.gentd26
	$(BIN)/python -m studies.density
	$(BIN)/python -m studies.restore
	$(BIN)/python -m studies.faults
	$(BIN)/python -m studies.prediction
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.decisions
	$(BIN)/python -m benchmarks.live.scheduler
	$(BIN)/python -m benchmarks.live.gateway
	$(BIN)/inferx pack --experiment fgd --jobs 2 --out build/packed --overwrite
	cp build/packed/comparison.md docs/results/packing.md
	cp build/packed/curves.csv docs/results/data/packing-curves.csv
	cp build/packed/manifest.json docs/results/data/packing-manifest.json

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo-run
