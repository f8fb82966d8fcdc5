PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

# From nothing to a pretrained model and a judged rollout: minutes on two CPU cores.
demo: $(VENV)/.demo
	$(BIN)/python -m data_adapters.suite level=small
	$(BIN)/python -m morph.train +experiment=demo overwrite=true
	$(BIN)/python -m morph.evaluate checkpoint=runs/demo run_dir=runs/demo one_step_windows=128 report=true \
	  data=[cfd1d,dr2d,swe2d,ns2d,mhd3d,cfd3d,dr1d,burgers1d,gs2d,ns3d]

# Every check that a change has to pass.
test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "morph needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[suite]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[suite,baselines,test]'
	touch $@ $(VENV)/.demo
