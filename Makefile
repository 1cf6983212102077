# make quickstart   set up .venv, train a small agent on generated household tasks, write a report (four minutes on two
#                   cores, six on one, no GPU); once more: go on where it was stopped. PROCESSES=1 uses one core
# make test         set up .venv with everything the tests use, run them, a worker for each core; which lines they miss
# make test-records the tests of the published records, left out of `make test`; stamps them when they pass
# make test-engines install vLLM's build for CPUs in ~/.cache/hiper/engine, unless it is there, and run the tests of it
# make test-wheel   build the distributions, install the wheel in an environment of its own, and run the tests of the
#                   unpacked source distribution against it; PYTHON=python3.13 chooses the interpreter
# make fuzz         some 16,800 odd and damaged inputs, with a table of what became of them (minutes); SEED=1 for others
# make check        lint, format and types over all of the code; the order of units, the sizes of modules and functions;
#                   the documentation site, strictly
# make kills        kill runs 300 times at random moments, resume and compare them (an hour; continues)
# make soak         train for an hour; do memory, open files and threads stay flat?
# make docs         build the documentation site into build/site, offline; open build/site/index.html
# make reference    write docs/reference and the pictures of the method anew from the code
# make setup        only set up .venv, as for the tests
#
# Another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/quickstart
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(2, os.cpu_count() or 1))')
WHEEL ?= build/wheel
SEED ?= 0
ENGINE ?= $(HOME)/.cache/hiper/engine

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock
CODE := src tests tools benchmarks

.PHONY: quickstart test test-records test-engines test-wheel fuzz kills soak check docs reference setup clean

quickstart: $(VENV)/.installed
	$(BIN)/hiper train $(if $(wildcard $(OUT)/config.yaml),--resume $(OUT),quickstart --out $(OUT)) --processes $(PROCESSES)

test: $(VENV)/.installed-dev
	sh tools/browser.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --cov=hiper --cov-report=term:skip-covered

test-records: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/results -m records
	$(BIN)/python tools/records.py stamp

test-engines: $(VENV)/.installed-dev
	$(BIN)/hiper engine install $(ENGINE) --cpu
	HIPER_ENGINE=$(ENGINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/rollout/samplers/test_engine.py -m engine

test-wheel: $(VENV)/.installed-dev
	rm -rf $(WHEEL)
	$(BIN)/python -m build --outdir $(WHEEL)/dist
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --constraint requirements.lock --quiet torch
	$(WHEEL)/venv/bin/python -m pip install --constraint requirements.lock --quiet "$$(ls $(WHEEL)/dist/*.whl)[dev,docs,textworld]"
	tar -xzf $(WHEEL)/dist/*.tar.gz -C $(WHEEL) --strip-components=1 --one-top-level=unpacked
	cd $(WHEEL)/unpacked && OMP_NUM_THREADS=1 ../venv/bin/python -m pytest --numprocesses auto $(TESTS)

fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz --numprocesses auto --dist worksteal --hypothesis-profile=full --hypothesis-seed=$(SEED)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python tools/house.py --check
	$(BIN)/lint-imports
	$(BIN)/python tools/website.py

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/website.py

kills soak: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tools/$@.py

reference: $(VENV)/.installed-dev
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/pictures.py

setup: $(VENV)/.installed-dev

clean:
	rm -rf $(VENV)

# torch comes first and on its own: it is large, and this way a CPU build is taken where pip has been offered one.
$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "HiPER needs Python 3.11 or later; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and what HiPER needs: a few minutes"
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev,docs,textworld]'
	touch $@
