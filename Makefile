# make test, make demo: everything on a fresh machine that has Python 3.10 or newer.
# Another interpreter: make PYTHON=python3.12 test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help test test-rest test-all lint mutation demo demo-backbone docs docs-check test-oldest test-newest test-install clean

help:
	@echo "make test   lint, type check, tests: all but what test-rest has"
	@echo "make test-rest  the laws on every other pair of method and backbone"
	@echo "make test-all   both"
	@echo "make test-oldest  the core's tests on the lower bounds of pyproject.toml"
	@echo "make test-newest  the core's tests on Python 3.13 and the newest packages"
	@echo "make test-install  build, check and try the wheel in an empty environment"
	@echo "make lint   lint and type check only"
	@echo "make mutation  run a sample of mutants (about two hours; docs/testing.md)"
	@echo "make demo   train three methods on made scenes and compare them"
	@echo "make demo-backbone  pretrain the demo's backbone anew (a quarter of an hour)"
	@echo "make docs   build the documentation into site/"
	@echo "make docs-check  build it, and walk every page in a headless Chromium"
	@echo "make clean  remove .venv and everything built"

$(READY): pyproject.toml
	@echo "== making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@echo "== installing peft-dense and its tools; torch is large, this takes minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
	@echo "== .venv is ready"

lint: $(READY)
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== mypy --strict"
	@$(BIN)/mypy

test: lint
	@echo "== pytest"
	@$(BIN)/pytest -n $(WORKERS) -q

test-rest: $(READY)
	@echo "== pytest -m full"
	@$(BIN)/pytest -n $(WORKERS) -q -m full

test-all: test test-rest

mutation: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m mutation --rooms core --sample 400 --seed 0
	@PYTHONPATH=tests $(BIN)/python -m mutation --rooms training,data,tasks --sample 320 --seed 0

# What needs few packages: layers, methods, heads, tasks, saving, injection, and each law on a choice.
CORE := tests/nn tests/methods tests/heads tests/tasks tests/keeping tests/test_inject.py \
	tests/test_laws.py -k "not start_is_the_identity or vmt_lite"
OLDEST_PYTHON ?= $(shell python3.10 --version >/dev/null 2>&1 && echo python3.10 || echo $(PYTHON))
NEWEST_PYTHON ?= $(shell python3.13 --version >/dev/null 2>&1 && echo python3.13 || echo $(PYTHON))

test-oldest:
	@echo "== making .venv-oldest with $$($(OLDEST_PYTHON) --version)"
	@$(OLDEST_PYTHON) -m venv --clear .venv-oldest
	@.venv-oldest/bin/python tests/installing/bounds.py > .venv-oldest/bounds.txt
	@.venv-oldest/bin/python -m pip install --quiet -r .venv-oldest/bounds.txt -e '.[train]'
	@OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q $(CORE)

test-newest:
	@echo "== making .venv-newest with $$($(NEWEST_PYTHON) --version)"
	@$(NEWEST_PYTHON) -m venv --clear .venv-newest
	@.venv-newest/bin/python -m pip install --quiet -e '.[train]' pytest hypothesis scikit-image
	@OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q $(CORE)

# Fresh environments outside the checkout; the wheel's alone has no extras.
test-install:
	@rm -rf dist .venv-build && $(PYTHON) -m venv .venv-build
	@.venv-build/bin/python -m pip install --quiet build twine
	@.venv-build/bin/python -m build --outdir dist .
	@.venv-build/bin/python -m twine check --strict dist/*
	@$(PYTHON) tests/installing/try_wheel.py dist README.md

demo: $(READY)
	@$(BIN)/python examples/train.py --method decoders_only,shared_adapter,vmt_lite --data made \
		--image-size 128 160 --steps 400 --lr 5e-3 --eval-every 400 --pictures 3 \
		--loss-weights semseg=5 human_parts=20 sal=10 --hyper vmt_lite.ratio=1 --out runs/demo
	@rm -rf runs/demo/unseen
	@$(BIN)/peft-dense data make runs/demo/unseen --layout folder --look demo --seed 99 --train 1 \
		--val 8 --size 160 200
	@$(BIN)/peft-dense predict runs/demo/vmt_lite runs/demo/unseen/images --out runs/demo/seen \
		--overwrite

demo-backbone: $(READY)
	@$(BIN)/python examples/pretrain_demo.py --out examples/demo_backbone.safetensors

docs-check: docs
	@$(BIN)/python docs/check_site.py site

docs: $(READY)
	@echo "== mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "== site/index.html is ready"

clean:
	rm -rf .venv .venv-oldest .venv-newest .venv-build site dist runs mutants .mypy_cache .pytest_cache .ruff_cache .hypothesis
