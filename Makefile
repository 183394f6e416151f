# make demo: set up and predict the example enzymes.  make test: set up and run the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check lint bench docs models clean

demo: $(VENV)/.base
	$(BIN)/enzyme-stability predict examples/enzymes.fasta

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.dev lint
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term-missing:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.base

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/speed.py --data $(DATA)

docs: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/integration/test_docs.py

# The shipped predictors from the raw public tables: prepare, train, evaluate, write the card, put them in the package.
DATA     ?= ../shared/data
CLI      := OMP_NUM_THREADS=1 $(BIN)/enzyme-stability
SHIPPED  := src/enzyme_stability/pretrained
RESULTS  := benchmarks/results
ENZYMES  := brenda_stability_train growth_and_optimum
TESTS_OF_builtin := tm50_test deepstabp_test tmpred_test flip_human_clustered_test flip_mixed_test $(ENZYMES)
TESTS_OF_tm50    := tm50_test $(ENZYMES)

models: outputs/tm50/CARD.md outputs/builtin/CARD.md

outputs/%.parquet: $(VENV)/.dev src/enzyme_stability/conf/prepare_%.yaml
	mkdir -p outputs
	$(CLI) data prepare --recipe $* --root $(DATA) --output $@

outputs/%/predictor.json: outputs/%.parquet src/enzyme_stability/conf/train_%.yaml
	$(CLI) train $*

outputs/%/CARD.md: outputs/%/predictor.json outputs/%.parquet
	for table in $(TESTS_OF_$*); do \
	  $(CLI) evaluate $$table --model outputs/$* --root $(DATA) --train outputs/$*.parquet --output outputs/evaluation/$* || exit 1; \
	done
	$(CLI) evaluate tm50_test --with-growth-temperature --model outputs/$* --root $(DATA) --train outputs/$*.parquet --output outputs/evaluation/$*
	$(CLI) card outputs/$* outputs/evaluation/$*
	rm -rf $(SHIPPED)/$* $(RESULTS)/$*
	mkdir -p $(SHIPPED)/$* $(RESULTS)/$*
	cp outputs/$*/predictor.json outputs/$*/*.onnx outputs/$*/CARD.md $(SHIPPED)/$*
	cp outputs/$*/held_out_folds*.json outputs/evaluation/$*/*.json outputs/evaluation/$*/*.png $(RESULTS)/$*

.PRECIOUS: outputs/%.parquet outputs/%/predictor.json

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
