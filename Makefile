# What a developer does here. Every target makes .venv ready first (.ci/bootstrap); nothing else has to be installed.

PY = .venv/bin/python
JOBS = 2
CLIENTS = all
KILLS = 500
LARGE_MIB = 1024

.PHONY: help venv demo test agents clients large tamper crash openapi cover lint fix bench docs lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST)

venv:
	@./.ci/bootstrap

demo: venv ## the same agent without and with Borderpost, side by side
	@.venv/bin/borderpost demo

test: venv ## all tests (PYTEST="-k words" to choose)
	$(PY) -m pytest -n $(JOBS) --dist loadfile $(PYTEST)

agents: venv ## agents of real frameworks, without and with Borderpost (installs packages; AGENTS="plain" to choose)
	$(PY) examples/run.py $(AGENTS)

clients: venv ## real clients of Python, Node.js and the shell, against what their servers counted (installs packages; CLIENTS=short)
	$(PY) -m tests.clients.environments
	BORDERPOST_CLIENTS=$(CLIENTS) $(PY) -m pytest -n $(JOBS) tests/clients

large: venv ## 1 GiB up and down through a proxy whose memory is watched (LARGE_MIB=1024)
	BORDERPOST_LARGE_MIB=$(LARGE_MIB) $(PY) -m pytest -s -n 0 tests/proxy/test_large.py

crash: venv ## kill -9 at every step of everything, often (KILLS=500)
	CRASH_KILLS=$(KILLS) $(PY) -m pytest -s tests/crash

tamper: venv ## change every byte of a ledger, one at a time: `log verify` has to see it
	BORDERPOST_TAMPER=all $(PY) -m pytest -s -n 0 tests/proxy/ledger/test_verify.py

openapi: venv ## published OpenAPI documents: imported, and calls made of them decided (needs npm)
	@./.ci/specs
	OPENAPI_SPECS=.specs $(PY) -m pytest -s -n 0 tests/published

cover: venv ## every branch of rules/ is tested by tests/rules
	HYPOTHESIS_PROFILE=cover $(PY) -m coverage run -m pytest tests/rules
	$(PY) -m coverage report

lint: venv ## style, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

fix: venv ## mend what can be mended by machine
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: venv ## a short run of the benchmarks
	$(PY) -m bench.bench_decide
	$(PY) -m bench.bench_proxy
	$(PY) -m bench.bench_stream

docs: venv ## run every example in README and docs
	$(PY) -m pytest tests/test_docs.py

lock: ## pin the newest permitted dependencies again (needs uv)
	uv pip compile --universal --python-version 3.12 --group dev --upgrade --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --quiet --output-file .ci/lock.txt pyproject.toml

clean: ## remove what was made, .venv included
	rm -rf .venv .agents dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
