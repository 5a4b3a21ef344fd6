# `make demo` and `make test` set up all they need on a machine with Python 3.11 and a shell.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

.PHONY: install install-dev prometheus demo test live lint types bench schema clean

install: $(VENV)/.run
install-dev: $(VENV)/.dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The real Prometheus server of Debian's package, unpacked under .cache/ without root; tests that need it say so if it can't be had.
prometheus: $(VENV)/.run
	-@$(PY) -m testbed.live.prometheus_server --install

demo: install
	$(PY) -m testbed.experiments.demo

test: install-dev prometheus
	$(PY) -m pytest -m "not live"

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
	$(PY) -m deepscaler.learning.bench

# What is made from the settings' descriptions: the JSON schemas that editors read, and docs/settings.md.
schema: install
	$(PY) -m deepscaler.settings --schema
	$(PY) -m deepscaler.settings --docs

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
