# The first target is what a bare `make` runs.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Percent of lines and branches of redset/*.py that `make test-all` must reach.
COVERAGE ?= 97
# Many tests only wait, so four workers keep two cores busy.
WORKERS ?= 4

.PHONY: help demo demo-scrapy test test-all test-rest sanitize fuzz chaos soak mutants bench bench-quick docs lint wheel clean FORCE
.DELETE_ON_ERROR:

help:
	@echo 'make demo         crawl a site of 526 pages; kill a worker, restart the server'
	@echo '                  (ARGS=--cluster: on a cluster; move a slot, kill a primary)'
	@echo '                  (ARGS=--top: in a live view, for a minute)'
	@echo '                  (ARGS=--hosts: 20 hosts, with a limit and a gap for each)'
	@echo 'make demo-scrapy  the same site with two Scrapy processes, one of which is killed'
	@echo 'make test         run the tests, 6 minutes (ARGS="-k name" for some of them)'
	@echo 'make test-all     every case of them, with coverage (half an hour)'
	@echo 'make sanitize     the core under AddressSanitizer and UBSan'
	@echo 'make fuzz         generated attacks, in full (ARGS="inputs --count 1000 --seed 7")'
	@echo 'make chaos        kills, restarts, cuts and other faults, in full (ARGS="cuts --seed 7")'
	@echo 'make soak         ten minutes of work, with the memory that it takes'
	@echo 'make mutants      planted faults, each of which a test must notice (ARGS=name for one)'
	@echo 'make bench        run the benchmarks, for the plots of the documentation, too (an hour)'
	@echo 'make bench-quick  run them at reduced sizes (3 minutes)'
	@echo 'make docs         build the documentation, and run its examples (docs/_build/html)'
	@echo 'make lint         ruff, mypy, cython-lint, and whether generated files are fresh'
	@echo 'make wheel        build sdist and wheel    (dist/)'
	@echo 'make clean        remove what the others made'
	@echo
	@echo 'All but clean create $(VENV) from $(PYTHON) (PYTHON=python3.13 for another).'

# --- the environment

python := $(VENV)/bin/python
pip := $(python) -m pip --disable-pip-version-check --quiet
no := $(or $(REDSET_NO_EXTENSIONS),0)
required := $(or $(REDSET_REQUIRE_EXTENSIONS),0)
# The variables are part of the name: a change of them builds again.
flags := no$(no)-required$(required)
# What the core includes is among them: setup.py asks for the same.
sources := pyproject.toml setup.py $(wildcard redset/*.pyx redset/*.pxd redset/_wire/*.pxi \
  redset/_wire/*.pxd redset/_wire/*.h)
core := $(wildcard redset/_speedups*.so)
missing := $(if $(core),,$(filter-out 0,$(required)))

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'redset needs Python 3.10 or later; choose one with make PYTHON=…' >&2; exit 1; }
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && $(PYTHON) -m venv $(VENV); then :; \
	elif $(PYTHON) -c 'import virtualenv' 2>/dev/null; then \
	  rm -rf $(VENV) && $(PYTHON) -m virtualenv --quiet $(VENV); \
	elif command -v virtualenv >/dev/null; then \
	  rm -rf $(VENV) && virtualenv --quiet --python $(PYTHON) $(VENV); \
	else \
	  rm -rf $(VENV); \
	  echo 'No way to make a virtual environment: $(PYTHON) has no venv with ensurepip, and' >&2; \
	  echo 'there is no virtualenv. On Debian and Ubuntu: apt install python3-venv' >&2; \
	  echo '(or virtualenv); elsewhere: $(PYTHON) -m pip install --user virtualenv' >&2; \
	  exit 1; \
	fi
	@touch $@

# One stamp for each extra. The core is built in place; a stale one would hide that
# this build fell back.
$(VENV)/.installed-%-$(flags): $(VENV)/.created $(sources) $(if $(missing),FORCE)
	@find $(VENV) -maxdepth 1 -name '.installed-*' ! -name '*-$(flags)' -exec rm -f {} +
	@rm -f redset/_speedups*.so
	$(pip) install --editable '.[$*]'
	@test -f redset/_speedups.pyx && test $(no) = 0 && ! ls redset/_speedups*.so >/dev/null 2>&1 \
	  && echo 'The compiled core did not build (no compiler, or no Python.h): using the fallback (after installing one: make clean).' || :
	@touch $@

FORCE:

# Another make that runs in this tree must not install at the same time. The inner one
# looks again at what there is to do, once it is alone.
ready = +@$(MAKE) --no-print-directory --question $(VENV)/.installed-$(1)-$(flags) 2>/dev/null \
  || $(PYTHON) tests/locked.py $(VENV).lock \
    $(MAKE) --no-print-directory $(VENV)/.installed-$(1)-$(flags)

# --- what to do with it

demo:
	$(call ready,demo)
	$(python) -m redset.demo $(ARGS)

comma := ,
demo-scrapy:
	$(call ready,demo$(comma)scrapy)
	$(python) -m redset.demo.scrapy $(ARGS)

# Bytecode is kept, whatever the environment says: the children of the tests would compile all of
# redset again, each for itself.
pytest := PYTHONDONTWRITEBYTECODE= $(python) -m pytest -n $(WORKERS) --dist worksteal
# Two runs at once must not share a data file. With COVERAGE_FILE set, runs add to that one.
measured := COVERAGE_FILE="$${COVERAGE_FILE:-$$(mktemp -d)/coverage}" \
  $(pytest) --cov=redset --cov-branch --cov-append

test:
	$(call ready,test)
	$(if $(MEASURE),$(measured) --cov-report=,$(pytest)) $(ARGS)

# The documentation is built and looked at by tests that only these two run.
test-all:
	$(call ready,test)
	$(call ready,docs)
	$(measured) --cov-report=term $(if $(strip $(ARGS)),,--cov-fail-under=$(COVERAGE)) --all $(ARGS)

# What `make test-all` adds to `make test MEASURE=1`, for a run in two parts.
test-rest:
	$(call ready,test)
	$(call ready,docs)
	$(measured) --cov-report=term --cov-fail-under=$(COVERAGE) --rest $(ARGS)

# The core is built once more, apart, in build/sanitize.
sanitize:
	$(call ready,test)
	$(python) tests/sanitize.py $(ARGS)

fuzz:
	$(call ready,test)
	cd tests && $(abspath $(python)) -m fuzz $(ARGS)

chaos:
	$(call ready,test)
	cd tests && $(abspath $(python)) -m chaos $(ARGS)

soak:
	$(call ready,test)
	cd tests && $(abspath $(python)) -m chaos soak $(ARGS)

mutants:
	$(call ready,test)
	cd tests && $(abspath $(python)) -m mutants $(ARGS)

bench:
	$(call ready,bench)
	$(python) -m benchmarks $(ARGS)

bench-quick:
	$(call ready,bench)
	$(python) -m benchmarks --quick $(ARGS)

docs:
	@test -f docs/conf.py || { echo 'There is no documentation to build yet.' >&2; exit 1; }
	$(call ready,docs)
	@echo 'Running the examples of the documentation; a warning is an error (half a minute) ...'
	@$(python) -m sphinx -q -W --keep-going -b doctest docs docs/_build/doctest
	@tail -n 4 docs/_build/doctest/output.txt
	@echo 'Building the pages; a warning is an error (half a minute) ...'
	@$(python) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "Built $$(find docs/_build/html -name '*.html' | wc -l) pages: docs/_build/html/index.html"

lint:
	$(call ready,lint)
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy --strict redset
	$(python) tools/asyncio_face.py --check
	@if ls redset/*.pyx >/dev/null 2>&1; then \
	  echo 'cython-lint redset' && PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint redset; fi
	cd tests && $(abspath $(python)) -m mutants --check
	$(python) tests/lengths.py
	$(python) tests/language.py

wheel:
	$(call ready,test)
	@rm -rf dist
	$(python) -m build

clean:
	rm -rf $(VENV) $(VENV).lock .bench build dist redset.egg-info docs/_build htmlcov
	rm -rf .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f redset/_speedups*.so redset/_speedups*.pyd redset/*.c redset/*.html
	find redset tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
