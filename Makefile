# Two commands, each complete on a fresh Debian or Ubuntu machine with python3 >= 3.10:
#   make demo    generate toyworld, train on it, evaluate, print the table, draw it           (RUN=folder EPOCHS=n)
#   make test    the default test run                                                         (TESTS="-m slow" for the rest)
PYTHON ?= python3
RUN    ?= runs/demo
EPOCHS ?= 16
TESTS  ?=
BIN    := .venv/bin

# What the system must have: a venv that can install, and FFmpeg's shared libraries, which torchcodec loads.
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)
define system_packages
	@need=""; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || need="$$need python3-venv"; \
	PATH=$$PATH:/sbin ldconfig -p | grep -q libavcodec || need="$$need ffmpeg"; \
	if [ -n "$$need" ]; then \
	  echo "missing:$$need"; \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $$need >/dev/null; } 2>/dev/null \
	    || { echo "cannot install it from here; run: sudo apt-get install$$need"; exit 1; }; \
	fi
endef

.PHONY: demo test
demo: .venv/ready
	$(BIN)/python train.py --out $(RUN) --resume auto --epochs $(EPOCHS)
	$(BIN)/python tools/picture.py $(RUN)

test: .venv/ready
	$(BIN)/python -m pytest $(TESTS)

.venv/ready: pyproject.toml
	$(system_packages)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "python3 >= 3.10 is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[test,figures]"
	@touch $@
