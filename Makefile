# Each command is complete on a fresh Debian or Ubuntu machine with python3 >= 3.10:
#   make demo    generate toyworld, train on it, evaluate, print the table, draw it           (RUN=folder EPOCHS=n)
#   make test    the default test run                                                         (TESTS="-m slow" for the rest)
#   make maths   the equations alone, under a minute: a table of what was checked of each
#   make lint    ruff over everything, mypy over what a user imports
PYTHON ?= python3
RUN    ?= runs/demo
EPOCHS ?= 16
TESTS  ?=
NEEDS  ?=
BIN    := .venv/bin

# What the system must have: a venv that can install, and FFmpeg's shared libraries, which torchcodec loads. NEEDS names
# more programs, by the name that their package has too.
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)
define system_packages
	@need=""; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || need="$$need python3-venv"; \
	PATH=$$PATH:/sbin ldconfig -p | grep -q libavcodec || need="$$need ffmpeg"; \
	for program in $(NEEDS); do command -v $$program >/dev/null || need="$$need $$program"; done; \
	if [ -n "$$need" ]; then \
	  echo "missing:$$need"; \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $$need >/dev/null; } 2>/dev/null \
	    || { echo "cannot install it from here; run: sudo apt-get install$$need"; exit 1; }; \
	fi
endef

.PHONY: demo test maths lint
demo: .venv/ready
	$(BIN)/python train.py --out $(RUN) --resume auto --epochs $(EPOCHS)
	$(BIN)/python tools/picture.py $(RUN)

test: .venv/ready
	$(BIN)/python -m pytest $(TESTS)

maths: .venv/ready
	$(BIN)/python -m pytest --equations $(wildcard tests/test_*.py)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/ready: pyproject.toml
	$(system_packages)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "python3 >= 3.10 is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@
