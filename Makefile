# make demo    compare initializers on handwritten digits; see runs/demo
# make test    the test suite
# make check   what CI runs before the tests: lint and types
#
# The first call makes .venv (with uv if it is there, else venv and pip).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKDIR ?= runs/demo
FLAGS ?=

.PHONY: demo test check lint types notebooks clean

demo: $(STAMP)
	$(BIN)/python -m experiments.main --config=experiments/configs/demo.py \
	  --workdir=$(WORKDIR) $(FLAGS)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile $(FLAGS)

check: lint types

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/pyrefly check

notebooks: $(STAMP)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 \
	  --numprocesses=auto colabs

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; set PYTHON=python3.12, say' >&2; \
	    exit 1; }
	@echo 'Installing into $(VENV) ...'
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt \
	    -e '.[experiments,test]'; \
	else \
	  { $(PYTHON) -m venv $(VENV) || { echo 'On Debian and Ubuntu: apt install \
	python3-venv' >&2; exit 1; }; } && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -e '.[experiments,test]'; \
	fi
	@touch $@
