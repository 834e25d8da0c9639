# Each target sets up what it needs, from a bare python3. ARGS="…" passes flags on: make train ARGS="--epochs 12"
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
ARGS ?=

CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help train data test test-all fuzz demo lint types format bench space web docs dist test-lowest

help:
	@echo "make train      train on CIFAR-100 with the fast recipe (data: \$$CIFAR100_DATA_DIR or ./data)"
	@echo "make demo       train, evaluate and predict on synthetic images (1 minute with AMX-BF16, 7 with AVX2)"
	@echo "make test       the fast tests"
	@echo "make test-lowest  the fast tests on the lowest supported versions"
	@echo "make fuzz       the fuzzers for ten minutes (FUZZ_SECONDS, FUZZ_SEED)"
	@echo "make test-all   every test; those on real data need \$$CIFAR100_DATA_DIR"
	@echo "make space      the folder to upload as a Hugging Face Space, in space/ (needs the dataset: int8 is calibrated)"
	@echo "make web        the bundled weights as a static site, in web/ (int8 with \$$CIFAR100_DATA_DIR, else fp32; needs npm)"
	@echo "make lint       ruff        make types   pyright        make format   ruff, rewriting"
	@echo "make data       download CIFAR-100 and verify it, unless it is there"
	@echo "make docs       the documentation as a site, in site/"
	@echo "make dist       the source distribution and the wheel, in dist/"
	@echo "make bench      the figures under benchmarks/results/ (needs \$$CIFAR100_DATA_DIR)"

CONSTRAINTS ?= constraints.txt
VERSION = import sys; print(sys.version_info[:2])
ifeq (,$(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null))
.PHONY: $(READY)  # its Python is no longer installed: build it again
endif

$(READY): pyproject.toml $(CONSTRAINTS)
	@echo "Installing the dependencies into $(VENV): a minute or more"
	$(PYTHON) -m venv $$([ "$$($(BIN)/python -c '$(VERSION)' 2>&1)" = "$$($(PYTHON) -c '$(VERSION)')" ] || echo --clear) $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"  # the first with --group
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) $$($(BIN)/python .ci/torch_index.py $(CPU_INDEX)) -e . --group dev
	@touch $@

train: $(READY)  # huge pages make steps on a Linux CPU faster (docs/tutorial.md)
	GLIBC_TUNABLES=$${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} $(BIN)/cifar100 train --recipe fast $(ARGS)

data: $(READY)
	folder="$${CIFAR100_DATA_DIR:-data}"; \
	$(BIN)/cifar100 data check "$$folder" > /dev/null 2>&1 || $(BIN)/cifar100 data download --to "$$folder"

# Two at a time, with one thread each: threads that wait for each other on busy cores are many times slower.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal $(ARGS)

# The fast tests on the lowest versions that pyproject.toml admits, in an environment of their own.
LOWEST ?= .venv-lowest
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(LOWEST)/bin/python .ci/lowest_versions.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet -c $(LOWEST)/constraints.txt \
		$$($(LOWEST)/bin/python .ci/torch_index.py $(CPU_INDEX)) -e . --group test
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal $(ARGS)

test-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses 2 --dist worksteal $(ARGS)

# The same fuzzers run for 20 s in `make test`.
fuzz: $(READY)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/python -m pytest tests/test_fuzz.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/python benchmarks/training_loop.py --data-dir "$${CIFAR100_DATA_DIR:?}"
	$(BIN)/python benchmarks/convolution.py
	$(BIN)/python benchmarks/step_profile.py
	$(BIN)/python benchmarks/augmentation.py --data-dir "$${CIFAR100_DATA_DIR}"
	$(BIN)/python benchmarks/export.py pretrained --data-dir "$${CIFAR100_DATA_DIR}"
	$(BIN)/python benchmarks/browser.py --data-dir "$${CIFAR100_DATA_DIR}"

docs: $(READY)
	$(BIN)/python .ci/reference.py docs/reference
	$(BIN)/mkdocs build --strict --quiet

dist: $(READY)
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

space: $(READY)
	$(BIN)/python gradio_app/build.py space $(ARGS)

web: $(READY)
	$(BIN)/cifar100 export pretrained --format web --out web $(ARGS)

demo: $(READY)
	@rm -rf demo
	@echo "--- 1 of 4: train for three epochs on the synthetic set"
	$(BIN)/cifar100 train --dataset synthetic --epochs 3 --batch-size 64 --lr 0.05 --cutout-size 0 \
		--run-dir demo/run
	@echo "--- 2 of 4: evaluate"
	$(BIN)/cifar100 evaluate demo/run/best_model.pth --dataset synthetic --precision auto
	@echo "--- 3 of 4: write three images to files"
	$(BIN)/cifar100 data samples demo/images --dataset synthetic --count 3
	@echo "--- 4 of 4: predict what is in them"
	$(BIN)/cifar100 predict demo/images/*.png --checkpoint demo/run/best_model.pth --top-k 3
