# make report   the whole report: data, trainings, seven notebooks, PDF      PROFILE=smoke|quick|paper DATA= DEVICE= SEED=
#               FORMATS=pdf,html,docx,tex: the PDF and the web page (default), a Word file, a TeX source in two columns
#               ON=ray: what is missing is trained on a Ray cluster first
#               REPORTED=mine.toml: instead, whether the numbers of a report of your own can be right, without training
# make test     all tests, every notebook included
# make lab      JupyterLab in notebooks/; without a display it prints its address      PROFILE= DATA= PORT=
# make browser  JupyterLab, Notebook and the report's web page tried in Chromium, where one is installed
# make lint     ruff, mypy, and notebooks without outputs
# make faults   the long campaign of kills, full disks and damage; its last line counts what was lost
# make clean    what smoke and quick runs left; not .venv, data/ or anything of the profile paper
# make constraints   brings constraints.txt up to date after a change of requirements.txt
#
# Each makes .venv by itself, again when requirements.txt or constraints.txt changes. PYTHON= names another Python, 3.11
# or later. On Linux TORCH=cpu installs torch without CUDA, a download of 0.2 GB instead of 2.8 (elsewhere there is no
# other build); .venv keeps the build that it was made with, and naming the other one makes it anew.

PYTHON ?= python3
PROFILE ?= quick
DATA ?=
DEVICE ?=
FORMATS ?=
SEED ?= 0
ON ?=
PORT ?=

BIN := .venv/bin
READY := .venv/.ready
BUILT := $(shell cat $(READY) 2>/dev/null)
TORCH ?= $(or $(BUILT),cuda)

ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH is "$(TORCH)"; it can be cpu or cuda)
endif
# The CPU build's version ends in +cpu, which pip holds to be newer than the plain one of the default index.
ifeq ($(TORCH) $(shell uname -s),cpu Linux)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
endif
ifneq ($(TORCH),$(or $(BUILT),$(TORCH)))
ANEW := --clear
.PHONY: $(READY)
endif

.PHONY: report test lab browser lint faults clean constraints
.DEFAULT_GOAL := report

# Make hands SIGTERM on; however else it ends, the report ends with it.
report: $(READY)
	@LABREPORT_PARENT=$$PPID exec $(BIN)/python -m labreport report --profile "$(PROFILE)" --seed "$(SEED)" \
		$(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device "$(DEVICE)") \
		$(if $(FORMATS),--formats "$(FORMATS)") $(if $(ON),--on "$(ON)") $(if $(REPORTED),--reported "$(REPORTED)")

# The tests neither need CIFAR-10 nor touch figures/: they work in a folder of their own, on the stand-in.
test: $(READY)
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	env -u LABREPORT_DATA -u LABREPORT_WEIGHTS LABREPORT_HOME="$$home" LABREPORT_PROFILE=smoke LABREPORT_OFFLINE=1 OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -n 2 --maxschedchunk=1 \
		--nbmake --nbmake-kernel=python3 --nbmake-timeout=300 --ignore=tests/browser notebooks tests

faults: $(READY)
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	LABREPORT_HOME="$$home" $(BIN)/python -m pytest -n 2 -q --campaign tests/faults

# Jupyter refuses to run as root unless told to, and would open a text browser where there is no display.
LAB_OPTIONS = $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(PORT),--port="$(PORT)" --ServerApp.port_retries=0) \
	$(if $(filter Linux,$(shell uname -s)),$(if $(DISPLAY)$(WAYLAND_DISPLAY),,--no-browser))

lab: $(READY)
	@$(if $(DATA),LABREPORT_DATA="$(abspath $(DATA))") LABREPORT_PROFILE="$(PROFILE)" PYTHONPATH="$(CURDIR)" \
		$(BIN)/jupyter lab $(LAB_OPTIONS) notebooks

# Playwright only drives a browser, and that is the machine's own: without one, pytest says so and skips these tests.
CHROMIUM = $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name)))

browser: $(READY)
	@$(if $(CHROMIUM),$(BIN)/python -c 'import axe_playwright_python; import notebook' 2> /dev/null || $(BIN)/python -m pip install \
		--quiet --disable-pip-version-check $(TORCH_INDEX) -c constraints.txt -e '.[browser]' || true)
	@$(BIN)/python -m pytest -rs tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

clean:
	rm -rf build figures/smoke figures/quick runs/smoke runs/quick .pytest_cache .ruff_cache
	find labreport tests -name __pycache__ -prune -exec rm -rf {} +

# For every platform and every Python from 3.11 on, with what the extras need.
constraints:
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && cp constraints.txt "$$new/pins" && \
	$(PYTHON) -m venv "$$new" && "$$new/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9 && \
	"$$new/bin/uv" pip compile --quiet --no-python-downloads --no-annotate --no-header \
		--universal --python-version 3.11 --all-extras \
		$$(sed -nE 's/^([A-Za-z0-9_.-]+)==.*/--no-emit-package \1/p' requirements.txt) --no-emit-package labreport \
		requirements.txt pyproject.toml --output-file "$$new/pins" > /dev/null && \
	pins=$$(grep '^#' constraints.txt; grep -Ev '^(cuda|nvidia|triton)[-=]' "$$new/pins") && \
	echo "$$pins" > constraints.txt

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or later; name one with PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(ANEW) .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) -c constraints.txt -r requirements.txt
	@echo $(TORCH) > $@
