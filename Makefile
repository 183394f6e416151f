# make demo: set up and predict the example enzymes.  make test: set up and run the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check lint bench docs site models clean

demo: $(VENV)/.base
	$(BIN)/enzyme-stability predict examples/enzymes.fasta

# Whole files run side by side, one a core; each on one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST)

check: $(VENV)/.dev lint
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pip that comes with Python 3.11 takes minutes to see that so many pinned packages fit together.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "pip>=25"

$(VENV)/.base: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.base

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/speed.py --data $(DATA)

docs: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/integration/test_docs.py tests/integration/test_tutorials.py tests/integration/test_site.py

site: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

# The shipped predictors from the raw public tables: prepare, train, evaluate, write the card, put them in the package.
# An interrupted training is gone on with by 'enzyme-stability train --resume outputs/tm50'.
DATA     ?= ../shared/data
CLI      := OMP_NUM_THREADS=1 $(BIN)/enzyme-stability
SHIPPED  := src/enzyme_stability/pretrained
RESULTS  := benchmarks/results
ENZYMES  := brenda_stability_train growth_and_optimum
TESTS_OF_builtin := tm50_test deepstabp_test tmpred_test flip_human_clustered_test flip_mixed_test $(ENZYMES)
TESTS_OF_tm50    := tm50_test $(ENZYMES)

models: outputs/tm50.shipped outputs/builtin.shipped outputs/delta_tm.shipped

outputs/%.parquet: $(VENV)/.dev src/enzyme_stability/conf/prepare_%.yaml
	mkdir -p outputs
	$(CLI) data prepare --recipe $* --root $(DATA) --output $@

# Training writes its figures last, and a card of its own, which the evaluations below replace.
outputs/%/metrics.json: outputs/%.parquet src/enzyme_stability/conf/experiment/%.yaml
	$(CLI) train $*

outputs/%.shipped: outputs/%/metrics.json outputs/%.parquet
	for table in $(TESTS_OF_$*); do \
	  $(CLI) evaluate $$table --model outputs/$* --root $(DATA) --train outputs/$*.parquet --output outputs/evaluation/$* || exit 1; \
	done
	$(CLI) evaluate tm50_test --with-growth-temperature --model outputs/$* --root $(DATA) --train outputs/$*.parquet --output outputs/evaluation/$*
	$(CLI) card outputs/$* outputs/evaluation/$*
	rm -rf $(SHIPPED)/$* $(RESULTS)/$*
	mkdir -p $(SHIPPED)/$* $(RESULTS)/$*
	cp outputs/$*/predictor.json outputs/$*/*.onnx outputs/$*/CARD.md $(SHIPPED)/$*
	cp outputs/$*/held_out_folds*.json outputs/evaluation/$*/*.json outputs/evaluation/$*/*.png $(RESULTS)/$*
	touch $@

# The model of substitutions: a network that foretells the profile of a family, trees on top, three test tables.
POOL     := $(DATA)/sequences/pool.fasta.gz

outputs/expected_profile.onnx: $(VENV)/.dev
	$(CLI) delta-tm expected-profile $(POOL) --output $@

outputs/delta_tm/delta_tm.json: outputs/expected_profile.onnx src/enzyme_stability/config/delta_tm.py
	$(CLI) delta-tm train --root $(DATA) --database $(POOL) --network $< --output outputs/delta_tm

outputs/delta_tm.shipped: outputs/delta_tm/delta_tm.json
	for table in S571 S669 M1261; do \
	  $(CLI) delta-tm evaluate $$table --model outputs/delta_tm --root $(DATA) --database $(POOL) --output outputs/evaluation/delta_tm || exit 1; \
	done
	$(CLI) delta-tm card outputs/delta_tm outputs/evaluation/delta_tm
	rm -rf $(SHIPPED)/delta_tm $(RESULTS)/delta_tm
	mkdir -p $(SHIPPED)/delta_tm $(RESULTS)/delta_tm
	cp outputs/delta_tm/delta_tm.json outputs/delta_tm/*.onnx outputs/delta_tm/CARD.md $(SHIPPED)/delta_tm
	cp outputs/evaluation/delta_tm/*.json outputs/evaluation/delta_tm/*.png $(RESULTS)/delta_tm
	touch $@

.PRECIOUS: outputs/%.parquet outputs/%/metrics.json

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
