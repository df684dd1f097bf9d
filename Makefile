# `make` alone lists what there is. Python is called by path and module, because console scripts
# don't run from a folder with a space in its name.
SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
# Safe to use only where nothing is served: enough to load the settings.
SETTINGS_ENV := ENVIRONMENT=test SECRET_KEY=only-to-load-the-settings FIELD_ENCRYPTION_KEYS=only-to-load-the-settings PUBLIC_BASE_URL=http://127.0.0.1:8000
CHECK_ENV := $(SETTINGS_ENV) DATABASE_URL=postgres://nobody:none@127.0.0.1:1/none REDIS_URL=redis://127.0.0.1:1/0
PRODUCTION_ENV := ENVIRONMENT=production SECRET_KEY=$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(64))') \
  FIELD_ENCRYPTION_KEYS=$$($(PYTHON) -c 'import base64, secrets; print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())') \
  PUBLIC_BASE_URL=https://api.example.com ALLOWED_HOSTS=api.example.com BEHIND_TLS_PROXY=true \
  DATABASE_URL=postgres://app:secret@db.example.com/app REDIS_URL=redis://:secret@redis.example.com/0 \
  MAIN_API_BASE_URL=https://main.example.com MAIN_API_INTERNAL_TOKEN=token SANDBOX_TOKEN=token VAR_DIR=/nonexistent

.PHONY: help demo dev test lint types layers migrations deploycheck alerts secrets audit pytest fuzz bench chaos \
  backup restore docs format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/local-stamp ## run the main job here: order a deed, open its PDF, keep serving (ONCE=1 stops then)
	@exec $(PY) -m partner_api.local demo

dev: .venv/local-stamp ## serve with reload, on the demo's data
	@exec $(PY) -m partner_api.local dev

test: lint types layers migrations deploycheck alerts secrets audit pytest ## everything CI checks

lint: .venv/dev-stamp ## ruff and hadolint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/hadolint Dockerfile

types: .venv/dev-stamp ## mypy, strict
	$(CHECK_ENV) $(PY) -m mypy

layers: .venv/dev-stamp ## who may import whom
	$(CHECK_ENV) $(PY) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'

migrations: .venv/dev-stamp ## whether the migrations say what the models say
	$(PY) -m partner_api.local exec -- env $(SETTINGS_ENV) $(PY) manage.py makemigrations --check --dry-run

deploycheck: .venv/dev-stamp ## Django's and our own checks of a production start
	$(PRODUCTION_ENV) $(PY) manage.py check --deploy --fail-level WARNING

alerts: ## unit tests of the alerts, by promtool (of Debian's package prometheus)
	@command -v promtool >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && timeout 180 apt-get install -qq -y --no-install-recommends prometheus >/dev/null 2>&1; } || true
	@if command -v promtool >/dev/null; then promtool check rules deploy/prometheus/alerts.yml \
	  && promtool test rules deploy/prometheus/tests/*.yml; \
	else echo "alerts: skipped, promtool is not here and can't be installed (apt-get install prometheus)"; fi

secrets: .venv/dev-stamp ## whether a secret slipped into a file
	@git ls-files -z 2>/dev/null | xargs -0 -r $(PY) -m detect_secrets.pre_commit_hook \
	  --disable-plugin Base64HighEntropyString --disable-plugin HexHighEntropyString \
	  --disable-plugin KeywordDetector --disable-plugin BasicAuthDetector

audit: .venv/dev-stamp ## known faults of what we depend on (needs the network)
	@if $(PY) -c "import requests; requests.get('https://pypi.org/pypi/pip/json', timeout=5)" 2>/dev/null; \
	then said=$$($(PY) -m pip_audit --local --progress-spinner off 2>&1); \
	  grep -v "could not be audited" <<< "$$said"; \
	  echo "audit: $$(grep -c "could not be audited" <<< "$$said") packages could not be looked up"; \
	  ! grep -q "^Found .* known vulnerabilit" <<< "$$said"; \
	else echo "audit: skipped, pypi.org can't be reached from here"; fi

# Not under var/, which `make clean` takes away.
backup: BACKUP ?= backups/$(shell date -u +%Y%m%d-%H%M%S)
backup: .venv/local-stamp ## back up the database that the settings name: make backup BACKUP=folder
	@$(PY) -m partner_api.backup backup "$(BACKUP)"

restore: .venv/local-stamp ## fill an empty database from a backup, and compare: make restore BACKUP=folder
	@test -n "$(BACKUP)" || { echo "say which backup: make restore BACKUP=folder" >&2; exit 2; }
	@test -f "$(BACKUP)/manifest.json" || { echo "there is no backup in $(BACKUP)" >&2; exit 2; }
	@$(PY) -m partner_api.backup restore "$(BACKUP)"

# More than the cores: many tests wait for processes of their own to start and end.
WORKERS ?= 3
pytest: .venv/dev-stamp ## the test suite, on real Postgres and Redis
	$(PY) -m pytest -n $(WORKERS) --dist worksteal

fuzz: .venv/dev-stamp ## break each constraint of the OpenAPI document in turn, over HTTP; make test does a part of it
	FUZZ=thorough $(PY) -m pytest -n 2 tests/e2e/test_schema.py

bench: .venv/dev-stamp ## measure what claims to be fast, as ratios; writes var/bench/report.json
	$(PY) -m bench

chaos: .venv/dev-stamp ## kill processes at random while 1,000 deeds are ordered, then count (ORDERS, KILLS, SEED)
	@exec $(PY) -m bench.chaos

docs: .venv/dev-stamp ## write the generated documents
	$(CHECK_ENV) $(PY) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml
	$(CHECK_ENV) $(PY) manage.py event_catalog --file docs/events.md

format: .venv/dev-stamp ## format the code, and mend what ruff can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove the virtual environment and all local data, and leave backups/
	rm -rf .venv var staticfiles

.venv/python-stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/local-stamp: requirements.txt requirements-local.txt constraints.txt | .venv/python-stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt -r requirements-local.txt
	@touch $@

.venv/dev-stamp: requirements.txt requirements-local.txt requirements-dev.txt constraints.txt | .venv/python-stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt -r requirements-dev.txt
	@touch $@ .venv/local-stamp
