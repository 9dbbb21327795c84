# Everything a newcomer needs: `make demo` shows the platform and its proofs, `make test` tests the suite itself.
# Both set up what they need first: uv (from PATH or PyPI), the locked environment, then programs on demand.
SHELL := /bin/bash
UV_VERSION := 0.13.8
UV := $(shell command -v uv || echo $(CURDIR)/.uv/bin/uv)
RUN := $(UV) run --frozen --all-extras
PYTHON ?= python3

.PHONY: help setup demo test nightly check clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(UV)  ## uv and the locked environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed. Fix: install it, or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(UV) sync --quiet --frozen --all-extras --python $(PYTHON)

$(CURDIR)/.uv/bin/uv:
	@test -w $(CURDIR) || { echo "$(CURDIR) can't be written to by $$(id -un). Fix: use a clone of your own"; exit 2; }
	@echo "uv is not on PATH: getting $(UV_VERSION) from PyPI"
	@$(PYTHON) -m pip install --quiet --no-input --disable-pip-version-check --target $(CURDIR)/.uv uv==$(UV_VERSION) \
	  || { echo "uv could not be installed. Fix: install python3-pip, or uv itself (https://docs.astral.sh/uv)"; exit 2; }

demo: setup  ## the main job: platform up, every scenario it can show, report, platform down
	@$(RUN) ibox demo $(ARGS)

test: setup  ## selftests, the services' tests, then the security scenarios on the local platform
	@$(RUN) ibox test $(ARGS)

nightly: setup  ## releases x providers, one page for all (ARGS="--provider local -- -m security")
	@$(RUN) ibox nightly $(ARGS)

check: setup  ## types, style
	@$(RUN) mypy && $(RUN) ruff check && $(RUN) ruff format --check

clean: setup  ## take down every platform of ours on this machine
	@$(RUN) ibox down --all
