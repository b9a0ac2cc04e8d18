# Everything a person does with a checkout. Needs Python >= 3.11 and make; the rest is set up by the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long bench lint lock clean

PY := .venv/bin/python
OURS := agent central config drivers grid simulator tizgin verifier wire
# Four workers on two cores: most tests wait for real devices and brokers. A file's tests stay together on one.
PYTEST := $(PY) -m pytest -n 4 --dist loadfile --durations=10
ARGS ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: ## create .venv with the locked packages
	@deploy/setup.sh python

demo: ## sites, central and a dispatcher on this machine (ARGS="--sites 2 --asics 500")
	@deploy/setup.sh demo
	@.venv/bin/tizgin demo $(ARGS)

test: ## lint, types, import rules and every test that ends in minutes (ARGS="-k modbus")
	@deploy/setup.sh test
	@status=0; $(MAKE) --no-print-directory lint-only || status=1; \
		$(PYTEST) -m "not long" $(ARGS) || status=1; exit $$status

test-long: ## the tests marked long: outages, power cuts, soak
	@deploy/setup.sh test
	@$(PY) -m pytest -m long --timeout 3600 --durations=10 $(ARGS)

bench: ## what README quotes, against peers and the floor (ARGS="--quick")
	@deploy/setup.sh test
	@for name in fieldbus asic orders evidence store detection; do \
		test -f benchmarks/$$name.py || { echo "benchmark $$name: not in this checkout, left out" >&2; continue; }; \
		$(PY) -m benchmarks.$$name --json $(ARGS) || exit 1; \
	done

lint: ## ruff, mypy and import-linter
	@deploy/setup.sh python
	@$(MAKE) --no-print-directory lint-only

# Every check speaks, whatever the one before it found.
.PHONY: lint-only
lint-only:
	@status=0; \
		echo "ruff check"; $(PY) -m ruff check . || status=1; \
		echo "ruff format --check"; $(PY) -m ruff format --check . || status=1; \
		echo "mypy --strict"; $(PY) -m mypy || status=1; \
		echo "import-linter"; .venv/bin/lint-imports || status=1; \
		exit $$status

lock: ## write requirements.lock anew from pyproject.toml (keeps versions; ARGS="--upgrade" raises them)
	@test -x .venv-lock/bin/uv || { python3 -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv; }
	@.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --extra central --extra grid --extra dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate $(ARGS) \
		pyproject.toml --output-file requirements.lock

clean: ## remove what was made here, but keep .venv
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .venv-lock
	@find $(OURS) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
