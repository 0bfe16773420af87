# make report   the whole report: data, trainings, six notebooks, PDF      PROFILE=smoke|quick|paper DATA= DEVICE= SEED=
# make test     all tests, every notebook included
# make lab      JupyterLab in notebooks/
# make lint     ruff, and notebooks without outputs
# make clean    what smoke and quick runs left; not .venv, data/ or anything of the profile paper
#
# Each makes .venv by itself, again when requirements.txt changes. PYTHON= names another Python, 3.11 or later.

PYTHON ?= python3
PROFILE ?= quick
DATA ?=
DEVICE ?=
SEED ?= 0

BIN := .venv/bin
READY := .venv/.ready

.PHONY: report test lab lint clean
.DEFAULT_GOAL := report

report: $(READY)
	@$(BIN)/python -m labreport report --profile "$(PROFILE)" --seed "$(SEED)" \
		$(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device "$(DEVICE)")

# The tests neither need CIFAR-10 nor touch figures/: they work in a folder of their own, on the stand-in.
test: $(READY)
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	env -u LABREPORT_DATA LABREPORT_HOME="$$home" LABREPORT_PROFILE=smoke LABREPORT_OFFLINE=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -n 2 --maxschedchunk=1 \
		--nbmake --nbmake-kernel=python3 --nbmake-timeout=300 notebooks tests

lab: $(READY)
	@$(if $(DATA),LABREPORT_DATA="$(abspath $(DATA))") LABREPORT_PROFILE="$(PROFILE)" $(BIN)/jupyter lab notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

clean:
	rm -rf build figures/smoke figures/quick runs/smoke runs/quick .pytest_cache .ruff_cache
	find labreport tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or later; name one with PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@
