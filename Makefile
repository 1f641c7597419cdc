# Two commands do everything on a machine that has Python, pip and make:
#   make demo    trains on real data and writes a table and a figure
#   make test    runs the tests
# Both make the environment when it is missing, when pyproject.toml has changed,
# or when another interpreter is chosen: make PYTHON=/path/to/python3.12 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
STAMP := $(VENV)/installed-$(VERSION)
JOBS ?= auto

# For the oracles: an environment of its own, and what is made in it.
TORCH := torch==2.13.0
define freeze
	$(1) -m venv build/oracles/$(2)
	build/oracles/$(2)/bin/pip install --quiet $(TORCH)
	build/oracles/$(2)/bin/pip install --quiet --no-deps -r tests/oracles/$(3)
	build/oracles/$(2)/bin/python -m tests.oracles.make $(4)
endef
# The first that runs, as a name on the PATH may be a shim that does not.
EMERGING_PYTHON = $(shell for python in $(PYTHON) \
  $$(pyenv root 2>/dev/null)/versions/3.1[23].*/bin/python \
  python3.12 python3.13; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null \
  && echo $$python && break; done)

.PHONY: demo test check docs oldest canary mutate notebooks notebook-outputs \
  oracles build clean

demo: $(STAMP)
	$(BIN)/python -m benchmarks rescaling --anew $(ARGS)

# Many tests compile the same programs: what is compiled is kept. Of 2,000 random
# programs a quarter runs here, and all in continuous integration.
CACHED := test oldest canary
$(CACHED): export JAX_COMPILATION_CACHE_DIR = $(abspath $(VENV))/compiled
$(CACHED): export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
$(CACHED): export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
test: export PSI_OPTAX_PROGRAMS ?= 200
test: $(STAMP)
	PSI_OPTAX_SMOKE=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# What continuous integration adds to the tests.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

# The site: build/docs/index.html. What it warns of is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet \
	  --jobs auto --doctree-dir build/doctrees docs build/docs

# The oldest versions that pyproject.toml admits, in an environment of their own,
# and the tests of what a version can change. Flax and Haiku were full of what JAX
# then deprecated, and Matplotlib of what its parser did. The last kfac-jax works
# with no newer JAX; where it cannot be had its test skips.
OLDEST := $(addprefix conformance/test_,contract.py frameworks.py checkpoints.py) \
  $(addprefix invariance/test_,zoo.py traps.py synchronized.py control_flow.py \
    custom_derivatives.py refs.py more_rules.py frameworks.py axis_names.py) \
  $(addprefix devices/test_,pmap.py shard_map.py monitor.py) \
  diagnostics/test_monitor.py geometry/test_scheduling.py \
  models/test_agreement.py models/test_groups.py benchmarks/test_train.py \
  benchmarks/recipes/test_natural_gradient.py test_readme.py
OLDEST_WARNINGS := -W 'ignore:jax:DeprecationWarning' \
  -W ignore::pyparsing.warnings.PyparsingDeprecationWarning
oldest: OLD := $(VENV)-oldest
oldest:
	$(PYTHON) -m venv --clear $(OLD)
	$(PYTHON) -m tests.oldest > $(OLD)/constraints.txt
	$(OLD)/bin/pip install --quiet --disable-pip-version-check -e '.[test]' \
	  -c $(OLD)/constraints.txt
	-$(OLD)/bin/pip install --quiet --disable-pip-version-check kfac-jax \
	  -c $(OLD)/constraints.txt
	$(OLD)/bin/python -m pytest -n $(JOBS) --dist worksteal -p no:cacheprovider \
	  $(OLDEST_WARNINGS) $(addprefix tests/,$(OLDEST)) $(ARGS)

# What is to come: pre-releases of JAX and optax, on the interpreter that is given.
# It may fail. A failure is no fault of a change; it says what to prepare for.
canary: PRE := $(VENV)-canary
canary:
	$(PYTHON) -m venv --clear $(PRE)
	$(PRE)/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(PRE)/bin/pip install --quiet --disable-pip-version-check --upgrade --pre \
	  --upgrade-strategy only-if-needed jax jaxlib optax
	$(PRE)/bin/pip list --disable-pip-version-check | grep -iE '^(jax|optax|flax)'
	$(PRE)/bin/python -m pytest -n $(JOBS) --dist worksteal -p no:cacheprovider \
	  $(addprefix tests/,$(OLDEST)) $(ARGS)

# Deliberate faults, each of which the fast tests must notice; with
# ARGS='--generated 12', 12 for each room that nobody thought of.
mutate: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutation]'
	$(BIN)/python -m tests.mutation $(ARGS)

# Rebuilds every .ipynb from its percent-format source, in which it writes the
# repository's address first. A changed cell loses its stored output.
notebooks: $(STAMP)
	$(BIN)/python -m tests.address notebooks/*.py
	$(BIN)/jupytext --to ipynb --update notebooks/*.py

# Executes them in full and stores the outputs: 6 minutes on two cores; for one,
# make notebook-outputs NOTEBOOKS=notebooks/01_quickstart.ipynb
notebook-outputs: NOTEBOOKS = notebooks/*.ipynb
notebook-outputs: notebooks
	$(BIN)/python -m tests.outputs $(NOTEBOOKS)

# What other libraries do, frozen for the tests: tests/oracles/make.py says how.
oracles:
	$(call freeze,$(PYTHON),venv,requirements.txt,$(ARGS))
	$(if $(EMERGING_PYTHON),$(call \
	  freeze,$(EMERGING_PYTHON),venv-emerging,requirements-emerging.txt,emerging \
	),@echo "emerging: skipped, no Python 3.12 or newer")

build: $(STAMP)
	$(BIN)/python -m build

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "psi_optax needs Python 3.11 or newer, and $(PYTHON) is $(VERSION):" \
	    "make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist results docs/notebooks
