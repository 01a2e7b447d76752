PYTHON ?= python3
VENV := .venv
OLDER := .venv-unsloth
BIN := $(VENV)/bin
PORT ?= 8000

# A machine without an NVIDIA device takes the CPU build of torch: the CUDA build is several gigabytes.
CONSTRAINTS := $(if $(wildcard /dev/nvidiactl),,-c constraints-cpu.txt)

define MAKE_VENV
$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
$(PYTHON) -m venv $(VENV)
endef

# Modules are compiled by all cores at once, which pip would do one after the other; those of tests, and of most models,
# when they are used. What is no Python of this release, such as a template, is left as it is.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/(?!auto/)' $(VENV)/lib || true

# The releases that pyproject.toml names for the provider unsloth.
UNSLOTH := $(shell sed -n 's/^  "\(unsloth[a-z_]*==[0-9.]*\)",$$/\1/p' pyproject.toml)

# Never from the current directory: what is installed is tested, which is the wheel in .ci/run. And compiled once.
PYTEST := PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

# The rooms whose tests run in test-fast: pure ones, and HTTP on scripted trainers.
FAST := $(addprefix tests/,admission client datasets domain event_log golden http machine projections docs test_settings.py)

.PHONY: setup setup-unsloth setup-trackers run demo test test-older test-fast coverage matrix torture fuzz screenshots bench bench-quick bench-page gpu gpu-wheels examples docs check clean

## setup: a virtual environment with everything in it
setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints-cpu.txt
	$(MAKE_VENV)
	$(INSTALL) $(CONSTRAINTS) --editable '.[dev]'
	$(COMPILE)
	touch $(VENV)/.runs $@

# What a user needs, which is there in a third of the time.
$(VENV)/.runs: pyproject.toml constraints-cpu.txt
	$(MAKE_VENV)
	$(INSTALL) $(CONSTRAINTS) --editable '.[trainers]'
	$(COMPILE)
	touch $@

## setup-unsloth: the provider unsloth; where there is no NVIDIA device its own two packages are enough
setup-unsloth: $(VENV)/.unsloth

$(VENV)/.unsloth: $(VENV)/.complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--no-deps $(UNSLOTH),--editable '.[dev,unsloth]')
	touch $@

## setup-trackers: what `report_to` can name, with which the tests of trackers try each real one
setup-trackers: $(VENV)/.trackers

$(VENV)/.trackers: $(VENV)/.complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev,trackers]'
	touch $@

## run: the server on 127.0.0.1:8000
run: $(VENV)/.runs
	$(BIN)/modelforge serve --port $(PORT)

## demo: fine-tune the built-in model on the example, and see what it learned
demo: $(VENV)/.runs
	$(BIN)/modelforge demo

## test: everything, on tiny models; twice as many processes as cores, since they often wait for servers
test: setup
	$(PYTEST) --numprocesses 4 --dist worksteal

## test-older: the trainers with the releases that unsloth holds its host to, in an environment of their own
test-older: $(OLDER)/.complete
	$(subst $(BIN),$(OLDER)/bin,$(PYTEST)) --numprocesses 2 --dist worksteal $(addprefix tests/trainer/,providers training strategies)

$(OLDER)/.complete: pyproject.toml constraints-cpu.txt constraints-unsloth.txt
	$(PYTHON) -m venv $(OLDER)
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -c constraints-unsloth.txt --editable '.[dev]'
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(UNSLOTH)
	touch $@

## test-fast: in under a minute, all that needs no training library: the inner loop
test-fast: setup
	$(PYTEST) --numprocesses 2 --dist worksteal -m "not training and not slow" --hypothesis-profile fast $(FAST)

## coverage: everything once more, with the branches that no test takes
coverage: setup
	$(PYTEST) --numprocesses 2 --dist worksteal --cov --cov-branch --cov-report term-missing:skip-covered

## matrix: every task, strategy and provider on a real server, as a table; REAL=1 on real weights, ONLY=word for some
matrix: setup
	$(BIN)/python tests/matrix.py $(if $(REAL),--real) $(if $(ONLY),--only "$(ONLY)")

## torture: kill server and trainers, KILLS times, and check every promise; SCENARIO is server, syscalls, processes, cluster or stops
torture: setup
	PYTHONPATH=tests $(BIN)/python -m torture $(or $(SCENARIO),all) --seed $(or $(SEED),1) $(if $(KILLS),--kills $(KILLS))

## fuzz: REQUESTS requests, by default 100000, that openapi.json allows or not, each answer checked against it
## UNDER=/v1/: of these paths alone, and with answers that no model gives
fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz --requests $(or $(REQUESTS),100000) --seed $(or $(SEED),1) $(if $(UNDER),--under $(UNDER) --scripted-answers)

## screenshots: the page with jobs in it, wide and on a phone, light and dark, into OUT (build/screenshots)
screenshots: setup
	PYTHONPATH=tests $(BIN)/python tests/page/screenshots.py --out $(or $(OUT),build/screenshots)

## bench: every figure beside its yardstick, under 20 minutes, into benchmarks/RESULTS.md; ONLY=word for some programs
bench: setup
	$(BIN)/python benchmarks/every_figure.py $(foreach word,$(ONLY),--only $(word))

## bench-quick: the same in small sizes and one round, in four minutes: that all of it runs
bench-quick: setup
	$(BIN)/python benchmarks/every_figure.py --quick $(foreach word,$(ONLY),--only $(word))

## bench-page: benchmarks/RESULTS.md of what was measured here before
bench-page: setup
	$(BIN)/python benchmarks/every_figure.py --write

## gpu: what only a GPU shows of trainings, in 8 minutes; ONLY="line line", MODEL=folder, OUT=folder, DEVICE=cpu to try it
GPU_OPTIONS = $(if $(DEVICE),--device $(DEVICE)) $(if $(MODEL),--model $(MODEL)) $(if $(OUT),--out $(OUT)) \
  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(AT_ONCE),--at-once $(AT_ONCE)) $(foreach line,$(ONLY),--only $(line))
ifdef WHEELS
# The machine's own Python with its torch, and what it lacks from a folder; a virtual environment would not see a torch
# that is itself in one.
gpu:
	rm -rf build/gpu-site
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target build/gpu-site $(WHEELS)/*.whl
	PYTHONPATH=$(CURDIR)/build/gpu-site:$(CURDIR):$(CURDIR)/benchmarks $(PYTHON) -m gpu $(GPU_OPTIONS)
else
gpu: setup
	PYTHONPATH=benchmarks $(BIN)/python -m gpu $(GPU_OPTIONS)
endif

## gpu-wheels: the wheels for `make gpu WHEELS=folder`, for TARGET (3.12) and CUDA (130), into WHEELS (build/wheels)
gpu-wheels: setup
	PYTHONPATH=benchmarks $(BIN)/python -m gpu.wheels $(or $(WHEELS),build/wheels) \
	  $(if $(TARGET),--python $(TARGET)) $(if $(CUDA),--cuda $(CUDA))

## examples: ask a server with scripted trainers everything, and keep what it says as the examples of openapi.json
examples: setup
	PYTHONPATH=tests TESTS_COLD=1 $(BIN)/python -m support.api_examples

## docs: docs/reference, and the parameters of docs/training.md, written from the code
docs: setup
	PYTHONPATH=tests $(BIN)/python -m support.reference_pages

## check: format, lint, types, import rules, known dangers
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive modelforge trainer_entry --configfile pyproject.toml

## clean: everything that make made; trained models and datasets stay
clean:
	rm -rf $(VENV) $(OLDER) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf *.egg-info
