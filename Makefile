# `make reacher` and `make test` each do all the set-up that is missing; a second call starts at once.
SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.PHONY: reacher test test-slow lint setup dreamer

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DREAMER := .venv-dreamer

reacher: $(READY)
	$(VENV)/bin/python eval/run_planning.py --task reacher

test: $(READY)
	$(VENV)/bin/pytest

test-slow: $(READY)
	$(VENV)/bin/pytest -m slow

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(READY)

# Apart, for sheeprl brings versions of packages that clash with ours.
dreamer: $(READY)
	test -x $(DREAMER)/bin/pip || $(PYTHON) -m venv --clear $(DREAMER)
	$(DREAMER)/bin/pip install -q -e '.[dreamer]'
	$(DREAMER)/bin/python -c 'import sheeprl'

$(READY): pyproject.toml
	@install() {  # Debian packages, as root or through sudo
		echo "installing $$*"
		if ! command -v apt-get >/dev/null; then
			echo "error: this needs the equivalent of Debian's $$*; install it and run make again" >&2; exit 1
		elif [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq "$$@" >/dev/null
		elif command -v sudo >/dev/null; then sudo apt-get update -qq && sudo apt-get install -y -qq "$$@" >/dev/null
		else echo "error: missing packages; as root, run: apt-get install $$*" >&2; exit 1
		fi
	}
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || {
		echo "error: Python 3.10 to 3.12 is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || install python3-venv
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	echo "installing Python packages into $(VENV) (a few minutes, once)"
	$(VENV)/bin/pip install -q --upgrade pip==26.0  # older ones take minutes to resolve the pins on Python 3.10
	$(VENV)/bin/pip install -q -e '.[dev]'
	renders() { $(VENV)/bin/python -c 'from jepa_mpc import envs; [envs.make(task).reset() for task in ("reacher", "push_t")]'; }
	renders >/dev/null 2>&1 || install libegl1 libgl1 libgl1-mesa-dri libglib2.0-0
	renders
	touch $@
