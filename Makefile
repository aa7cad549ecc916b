# The only commands a newcomer needs. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
AIRFLOW := .venv-airflow/.ready

.PHONY: help demo test check bench docs clean
help:
	@echo "make demo   run the recommendations pipeline on this machine"
	@echo "make test   run the whole test suite"
	@echo "make check  lint, types, layers"
	@echo "make bench  measure; figures are kept in docs/performance.md"
	@echo "make docs   build the site into site/"

$(READY): Makefile pyproject.toml $(wildcard plugins/*/pyproject.toml) conformance/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "portaflow needs Python >= 3.11; say which with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[dev,docs,compare]' -e 'plugins/local[spark,docker]' \
		-e plugins/kubernetes -e plugins/aws -e plugins/gcp -e 'conformance[emulators]'
	@touch $(READY)

# Not in .venv: aiobotocore, by which Airflow waits for AWS, wants another boto3. Most of these 1.6 GB
# is never imported, so nothing is compiled before it is; a pip as old as Python takes twice as long.
$(AIRFLOW): conformance/pyproject.toml constraints-airflow.txt
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/pip install --quiet --disable-pip-version-check -c constraints-airflow.txt -U pip
	.venv-airflow/bin/pip install --quiet --no-compile -c constraints-airflow.txt \
		-e . -e 'conformance[airflow]'
	@touch $(AIRFLOW)

demo: $(READY)
	$(BIN)/portaflow run dags/recommendations

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py

test: $(READY) $(AIRFLOW)
	@# Three at once leave no processor unused; what fails so for want of one must not fail alone.
	$(BIN)/pytest -n 3 --dist worksteal || $(BIN)/pytest --last-failed --last-failed-no-failures none

bench: $(READY)
	$(BIN)/python -m tests.benchmarks

docs: $(READY)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-airflow .portaflow site reports
