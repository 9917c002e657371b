# Everything from a fresh checkout: `make demo`, `make test`, `make lint`. Needs Python 3.11 to 3.14 and make.
#
#   make demo PYTHON=python3.12     which interpreter the environment is made with
#   make test VENV=/some/folder     where the environment is (default .venv)
#   make test ARGS="-k mfcc -x"     further arguments for the command that is run

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# torch 2.11 has wheels for these versions of Python and for no others.
PYTHON_CHECK := import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else \
	"asr-dni needs Python 3.11, 3.12, 3.13 or 3.14, but %s is Python %d.%d: name another one, as in  make demo PYTHON=python3.12" \
	% ((sys.executable,) + tuple(sys.version_info[:2])))

# The first interpreter that fits; python3 when none does, for the message that says so.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	if "$$python" -c '$(PYTHON_CHECK)' >/dev/null 2>&1; then echo "$$python"; exit; fi; done; echo python3)

# Empty files that record when the environment was last brought in line with the project's own files.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test docs lint format install install-dev lock audit licences mutants container-check gallery

help:  ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## Set up, then train a conventional and a noise-trained spotter on synthetic words and draw their noise curves
	$(BIN)/asr-dni demo $(ARGS)

# A worker for each core, and a thread for each worker; a file's tests share what they make, so they stay together, and
# files are begun in the order of tests/conftest.py.
WORKERS ?= auto

test: $(INSTALLED_DEV)  ## Set up, then run the tests (the slow ones too: make test ARGS="-m 'slow or not slow'")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Strict: a page, link or anchor that is not there is an error.
docs: $(INSTALLED_DEV)  ## Set up, then build the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

lint: $(INSTALLED_DEV)  ## Set up, then ruff, the formatter's check and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

format: $(INSTALLED_DEV)  ## Set up, then reformat the sources and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)  ## Only set up the environment

install-dev: $(INSTALLED_DEV)  ## Only set up the environment with the development tools

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "asr-dni needs Python 3.11 to 3.14, and there is no '$(PYTHON)' on the PATH" >&2; exit 1; }
	@"$(PYTHON)" -c '$(PYTHON_CHECK)'
	@# Debian's python3 has pip but no ensurepip unless python3-venv is installed: put pip in from outside then.
	@if "$(PYTHON)" -c 'import ensurepip' 2>/dev/null; then \
	    "$(PYTHON)" -m venv "$(VENV)"; \
	elif "$(PYTHON)" -m pip --version >/dev/null 2>&1; then \
	    "$(PYTHON)" -m venv --without-pip "$(VENV)" && "$(PYTHON)" -m pip --quiet --python "$(BIN)/python" install pip; \
	else \
	    echo "$(PYTHON) has neither ensurepip nor pip: install pip (on Debian and Ubuntu: apt install python3-venv)" >&2; false; \
	fi || { rm -f "$(BIN)/python"; exit 1; }

$(INSTALLED): requirements.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python -c '$(PYTHON_CHECK)'
	@echo "Installing the pinned dependencies into $(VENV): some 3 GB to download the first time"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# One version of each package for all versions of Python (--fork-strategy fewest), and a development lock that
# adds to the runtime's without changing it. Pins that still fit are kept: `make lock ARGS=--upgrade` renews them.
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--fork-strategy fewest --annotation-style line --no-emit-index-url --no-emit-find-links $(ARGS) pyproject.toml

lock:  ## Rewrite requirements.txt and requirements-dev.txt from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv (pip install uv)" >&2; exit 1; }
	$(LOCK) --output-file requirements.txt
	$(LOCK) --output-file requirements-dev.txt --extra dev --constraint requirements.txt

audit: $(INSTALLED_DEV)  ## Look the pinned versions up among known vulnerabilities (asks the package index); fails where one cannot be looked up
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement requirements.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement requirements-dev.txt

# What the wheels of two do not say: cuda-toolkit is NVIDIA's, and only names others; espeakng-loader is MIT, and carries eSpeak NG's
# library (GPL-3.0-or-later), which the synthetic speech loads and nothing else does.
LICENCES := MIT;BSD;Apache;ISC;PSF;Python Software Foundation;Mozilla;MPL;LGPL;Zlib;NVIDIA;Other/Proprietary

licences: $(INSTALLED_DEV)  ## List the licences of the pinned packages; fails on one that is not among the accepted
	@$(BIN)/pip-licenses --from=mixed --order=license --partial-match --allow-only="$(LICENCES)" \
	    --ignore-packages cuda-toolkit espeakng-loader \
	    --packages $$(sed -E 's/[=; ].*//; /^#/d; /^$$/d' requirements.txt)

gallery: $(INSTALLED_DEV)  ## Draw the figures of docs/gallery.md anew (ARGS="--runs RUNS --study STUDY ...", see scripts/gallery.py)
	$(BIN)/python scripts/gallery.py $(ARGS)

# One thread: mutants run in forked processes, which OpenMP's other threads would not live in.
mutants: $(INSTALLED_DEV)  ## Change the numeric code in small ways and see whether the tests notice (hours; ARGS="asr_dni.philox*" for a part)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results

container-check:  ## Build the image and train in it, without a container engine (Debian, as root; needs buildah and debootstrap)
	bash scripts/container_check.sh
