# make demo    the whole benchmark on four small generated video data sets, on this machine (no GPU, no download of data)
# make test    the tests
# make quick   the tests, but for those that run the workflow or take long
# make lint    ruff and snakefmt
# make docs    the pages of docs/ as a site in site/; their reference parts are written anew first
# make bench   the benchmarks (benchmarks/), but for those of a GPU, of 20 kills each, of Slurm and of the demo (BENCH=...)
# make bench-gpu  the one of a machine with an NVIDIA GPU, in less than nine minutes; ARGS=--dry runs it on the CPU
# make schema  workflow/schemas/config.schema.json from the config models
# make clean   removes .venv and what git ignores of the build; data/ and results/ stay
#
# The environment (.venv), with the command `ssp` in it, is made by the first of these and renewed when requirements or
# pyproject.toml change. Afterwards: `source .venv/bin/activate`, or `.venv/bin/ssp`.

SHELL := /bin/bash
VENV := .venv
CORES := all
ARGS :=
NOT_BENCH = gpu kill_anywhere kill_cluster cluster_overhead sweep_width demo_convergence plan
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 pytest --dist loadgroup # what tests start finds compiled modules
BENCH = $(filter-out $(NOT_BENCH:%=benchmarks/%.py), $(wildcard benchmarks/*.py))

RUNTIME := $(VENV)/.runtime-installed
PROJECT := $(VENV)/.project-installed
DEV := $(VENV)/.dev-installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH := $(CURDIR)

.PHONY: demo test quick lint docs bench bench-gpu schema clean help

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

demo: $(PROJECT)
	@python workflow/scripts/clear_stale_lock.py
	@python -m ssp.scan.build
	@echo "== Running the workflow (config/demo.yaml); logs of the jobs are under results/demo/logs"
	@tables=$$(python -m ssp.report.status config/demo.yaml snakemake --cores $(CORES) $(ARGS)) \
	  && echo "$${tables:-$$(python -m ssp.jobs.summary config/demo.yaml)}"

test: $(DEV) $(PROJECT)
	@python -m ssp.scan.build
	@$(PYTEST) -n 4 $(ARGS) # more than two cores: tests of Slurm and of kills wait most of the time

quick: $(DEV) $(PROJECT)
	@python -m ssp.scan.build
	@$(PYTEST) -n 2 -m "not workflow and not slow" $(ARGS)

lint: $(DEV) $(PROJECT)
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow

docs: $(DEV) $(PROJECT)
	@python workflow/scripts/write_docs.py
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "Wrote site/index.html"

bench: $(DEV) $(PROJECT)
	@python -m ssp.scan.build
	@for script in $(BENCH); do echo "== $$script"; python $$script $(ARGS) || exit 1; done

bench-gpu: $(DEV) $(PROJECT)
	@python benchmarks/gpu.py $(ARGS)

schema: $(PROJECT)
	@python workflow/scripts/write_schema.py

clean:
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache build site *.egg-info ssp/scan/_*.so

$(VENV)/bin/python:
	@python3=; for candidate in python3.11 python3.12 python3.13 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then python3=$$candidate; break; fi; \
	done; \
	if [ -z "$$python3" ]; then echo "Error: no Python 3.11 or newer found; install python3.11 (with its venv)" >&2; exit 1; fi; \
	echo "== Making $(VENV) with $$($$python3 --version)"; \
	$$python3 -m venv $(VENV) || { rm -rf $(VENV); echo "Error: $$python3 cannot make environments; install python3-venv" >&2; exit 1; }

$(RUNTIME): requirements.txt | $(VENV)/bin/python
	@echo "== Installing the pinned packages of requirements.txt (first time: about 2 minutes, 6.5 GB)"
	@pip install --quiet --disable-pip-version-check --progress-bar off -r requirements.txt
	@touch $@

# Without --no-build-isolation pip would download setuptools a second time; torch has brought it.
$(PROJECT): pyproject.toml setup.py $(RUNTIME)
	@pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	@echo "== Installing the tools of requirements-dev.txt"
	@pip install --quiet --disable-pip-version-check --progress-bar off -r requirements-dev.txt
	@touch $@
