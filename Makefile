# `make demo` and `make test` set up all they need on a machine with Python 3.11 or newer and a shell.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
WORKERS ?= 2

.PHONY: install install-dev compiled python prometheus victoria-metrics chromium demo test fuzz live lint types bench fidelity soak schema docs clean

install: $(VENV)/.run
install-dev: $(VENV)/.dev

# Says in one line that the Python is too old, before pip says it in a hundred: the environment's, else $(PYTHON).
python: USED    = $(or $(wildcard $(PY)),$(PYTHON))
python: VERSION = $(shell $(USED) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
python: FITS    = $(shell $(USED) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
python:
	@$(if $(filter True,$(FITS)),:,$(error DeepScaler needs Python 3.11 or newer; \
	$(USED) is $(if $(VERSION),$(VERSION),not there). $(if $(wildcard $(PY)),Remove $(VENV) and run,Run) make PYTHON=python3.13))

$(VENV)/bin/python: | python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | python $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The real Prometheus, VictoriaMetrics and Chromium of Debian's packages, unpacked under .cache/ without root; tests
# that need them are skipped and say so if they can't be had, and fail in CI.
prometheus: $(VENV)/.run
	-@$(PY) -m testbed.live.prometheus_server --install
victoria-metrics: $(VENV)/.run
	-@$(PY) -m testbed.live.victoria_metrics --install
chromium: $(VENV)/.run
	-@$(PY) -m testbed.live.chromium --install

demo: install
	$(PY) -m testbed.experiments.demo

# Once, before two processes would compile the same side by side.
compiled: install
	$(PY) -m testbed.experiments.bench --compile

test: install-dev compiled prometheus victoria-metrics chromium
	$(PY) -m pytest -m "not live" -n $(WORKERS) --dist loadfile

# Broken inputs for every parser, 2,000 each, in two processes; DEEPSCALER_FUZZ_EXAMPLES=50000 make fuzz tries more.
fuzz: install-dev
	$(PY) -m pytest tests/fuzz/test_answers.py & answers=$$!; \
	$(PY) -m pytest tests/fuzz/test_files.py; files=$$?; wait $$answers && exit $$files

# Wall-clock tests with real servers: Locust, Prometheus, the emulated Kubernetes API.
live: install-dev prometheus
	$(PY) -m pytest -m live

lint: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install-dev
	$(VENV)/bin/mypy

bench: install-dev
	$(PY) -m testbed.experiments.bench
	OMP_NUM_THREADS=1 $(PY) -m testbed.experiments.tick_bench
	$(PY) -m deepscaler.learning.bench

# The emulated cluster beside recordings of a real one: make fidelity DATA=path/to/result.zip (docs/fidelity.md).
DATA ?= result.zip
fidelity: install
	@test -f "$(DATA)" || { echo "$(DATA): no such file; get ScalerEval's result.zip and run: make fidelity DATA=path/to/result.zip" >&2; exit 1; }
	$(PY) -m testbed.fidelity --data "$(DATA)" --page docs/fidelity.md --write

# Days of virtual time among faults: SOAK="--hours 2 --seeds 1" is what CI runs; with SOAK="--out runs/soak" a soak
# that was stopped goes on.
soak: install
	$(PY) -m testbed.experiments.soak $(SOAK)

# What is made from the settings' descriptions: the JSON schemas that editors read, and docs/settings.md.
schema: install
	$(PY) -m deepscaler.settings --schema
	$(PY) -m deepscaler.settings --docs

# The numbers of README.md and docs/results.md: from the newest `make demo` where there is one, else docs/results.json,
# which also keeps those of runs that take hours.
docs: install
	$(PY) -m testbed.experiments.documents $(addprefix --summary ,$(wildcard runs/demo/summary.json))

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
