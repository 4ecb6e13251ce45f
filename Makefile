# `make reacher` and `make test` each do all the set-up that is missing; a second call starts at once.
# With another Python, in an environment of its own: make test PYTHON=python3.13 VENV=.venv-3.13
SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.PHONY: reacher test test-slow lint setup dreamer lock

PYTHON ?= python3
VENV ?= .venv
LOCK ?= dev
READY := $(VENV)/.ready
PYTORCH_CPU := https://download.pytorch.org/whl/cpu

reacher: $(READY)
	$(VENV)/bin/python eval/run_planning.py --task reacher

# Two files at a time, each on one thread: threads that wait for each other would take most of the time.
test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	$(VENV)/bin/pytest -m slow

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(READY)

# Apart, for sheeprl brings versions of packages that clash with ours.
dreamer:
	@$(MAKE) --no-print-directory setup VENV=.venv-dreamer LOCK=dreamer

# Makes the locks anew from pyproject.toml; a version that still fits stays, so delete a lock to renew all of it.
lock:
	@uv=$$(mktemp -d)
	trap 'rm -r "$$uv"' EXIT
	$(PYTHON) -m venv "$$uv" && "$$uv/bin/python" -m pip install -q uv==0.13.9
	for lock in dev dreamer; do
		"$$uv/bin/uv" pip compile -q --config-file requirements/uv.toml --universal --python-version 3.10 \
			--generate-hashes --no-annotate --custom-compile-command "make lock" --extra $$lock \
			--constraint requirements/torch.txt --no-emit-package torch -o requirements/$$lock.txt pyproject.toml
	done

# Two steps, for the two builds of PyTorch have other hashes than each other: all else comes by version and hash from a
# lock, PyTorch by version alone, from its own index (the CPU build) or the default one (the CUDA build, where it brings
# the rest of CUDA by exact versions). pip resolves nothing of ours, so an old one serves.
$(READY): pyproject.toml requirements/$(LOCK).txt requirements/torch.txt
	@if command -v flock >/dev/null; then  # of two calls at once, the second waits
		exec 9>>Makefile
		flock -n 9 || { echo "waiting for the set-up that another make has begun"; flock 9; }
	fi
	if [ -e $@ ] && [ -z "$$(find $^ -newer $@)" ]; then exit; fi

	step() {  # runs a command with a line every few seconds, on a terminal one that is written over
		local begin='' end='\n'
		[ ! -t 1 ] || begin='\r\e[K' end=''
		printf "$$begin%s\n" "$$1"
		while sleep 5 >/dev/null 2>&1; do
			printf "$$begin  %d s, %d MB in $(VENV)$$end" $$SECONDS "$$(du -sm $(VENV) 2>/dev/null | cut -f1)"
		done 9<&- &
		trap "kill $$! 2>/dev/null || :" EXIT
		"$${@:2}"
		kill $$!
		printf "$$begin"
	}
	debian() {  # packages by apt-get, which speaks only when it fails
		local log
		log=$$($$sudo apt-get update -qq 2>&1 &&
			$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$@" 2>&1) || { echo "$$log" >&2; exit 1; }
	}
	pip() {  # unpacks beside the packages: /tmp may be small, and the size above counts it
		mkdir -p $(VENV)/tmp
		TMPDIR="$$PWD/$(VENV)/tmp" $(VENV)/bin/python -m pip --disable-pip-version-check install -q --no-compile "$$@"
	}

	version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	case $$version in 3.10 | 3.11 | 3.12 | 3.13) ;; *)
		echo "error: Python 3.10 to 3.13 is needed, not $$version; name one with: make PYTHON=python3.12 ..." >&2; exit 1
	esac
	missing=()
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$$version-venv")
	opengl='import ctypes; [ctypes.CDLL(f"lib{name}") for name in ("EGL.so.1", "GL.so.1", "gthread-2.0.so.0")]'
	[ "$$(uname)" != Linux ] || $(PYTHON) -c "$$opengl" 2>/dev/null ||
		missing+=(libegl1 libgl1 libgl1-mesa-dri libglib2.0-0)
	if [ "$${#missing[@]}" != 0 ]; then
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo
		if ! command -v apt-get >/dev/null; then
			echo "error: this needs the equivalent of Debian's $${missing[*]}; install it and run make again" >&2; exit 1
		elif [ "$$sudo" ] && ! { command -v sudo >/dev/null && sudo -v; }; then
			echo "error: missing packages; as root, run: apt-get install $${missing[*]}" >&2; exit 1
		fi
		step "installing $${missing[*]}" debian "$${missing[@]}"
	fi

	$(VENV)/bin/python -m pip --version 2>/dev/null | grep -q "(python $$version)" ||
		step "making $(VENV)" $(PYTHON) -m venv --clear $(VENV)
	step "installing Python packages (a few minutes, once)" pip --no-deps --require-hashes -r requirements/$(LOCK).txt
	answers="import urllib.request as u; u.urlopen(u.Request('$(PYTORCH_CPU)/torch/', method='HEAD'), timeout=5)"
	index=
	if nvidia-smi -L >/dev/null 2>&1; then build="for CUDA, 4.5 GB"
	elif $(PYTHON) -c "$$answers" 2>/dev/null; then build="for the CPU, 0.7 GB"; index="--index-url $(PYTORCH_CPU)"
	else build="from the default index, which may be the one for CUDA, 3.9 GB: the CPU's own index does not answer"
	fi
	step "installing PyTorch ($$build)" pip $$index -r requirements/torch.txt
	# Without a GPU the CUDA build's compiler is of no use, and it crashes once Mesa of Debian 12 has loaded its own LLVM.
	nvidia-smi -L >/dev/null 2>&1 || $(VENV)/bin/python -m pip uninstall -q -y triton 2>/dev/null
	step "installing jepa-mpc" pip --no-deps --no-build-isolation -e .
	rm -r $(VENV)/tmp
	step "drawing a first picture" $(VENV)/bin/python -c 'from jepa_mpc import envs; envs.make("reacher").reset()'
	touch $@
