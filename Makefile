# The two commands: `make run` and `make test`. Everything happens in .venv, which the first of them creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
# Quiet libraries; the kernels inherit these.
export HF_HUB_DISABLE_PROGRESS_BARS = 1
export HF_DATASETS_DISABLE_PROGRESS_BARS = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = true
# Images of containers often set this; Python would then compile PyTorch and Transformers anew for every process:
# importing what a run needs takes 15 s of processor time instead of 7.
unexport PYTHONDONTWRITEBYTECODE

# Whether PyTorch multiplies in bf16 here decides how long everything takes; README, "Times", has the measurements.
BF16 := $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && test -z "$$ATEN_CPU_CAPABILITY" && echo with || echo without)
minutes = @echo "$(@:say-%=make %): about $(if $(filter with,$(BF16)),$(1),$(2)) minutes on two cores $(BF16) bf16, the installation included."

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: say-run say-test say-test-quick run test test-quick unit nbval test-slow test-browser lint lab refresh fuzz mutants bench bench-gpu bench-faults clean

run: say-run $(VENV)/installed
	$(BIN)/python -m bert_helpers run $(NOTEBOOKS)

# Lint, every test that trains nothing, then those that do, then every cell of every notebook.
test: say-test lint unit nbval

# After each change: lint and what trains nothing.
test-quick: say-test-quick lint
	$(PYTEST) -m "not trains and not slow and not browser"

unit: $(VENV)/installed
	$(PYTEST)

nbval: $(VENV)/installed
	$(BIN)/python -m pytest --nbval --nbval-cell-timeout 1200 $(NOTEBOOKS)

# What takes over a minute: ten kills, ten runs at once, the notebook lines of README.
test-slow: $(VENV)/installed
	$(PYTEST) -m slow

# The notebooks in JupyterLab in Chromium, with screenshots in results/screenshots. ONLY=04_ner for one.
test-browser: $(VENV)/installed
	$(PYTEST) -m browser -rP tests/test_browser.py $(if $(ONLY),-k $(ONLY))

say-run:
	$(call minutes,6,12)
say-test:
	$(call minutes,10,19)
say-test-quick:
	$(call minutes,2,2)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

# Execute in place, so that the committed outputs are those of this code.
refresh: $(VENV)/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)
	$(BIN)/python docs/picture.py
	$(BIN)/python docs/findings.py
	$(BIN)/python docs/drawings/drawing.py

# Damaged files and made-up input, new ones each time; half an hour with the default number of examples a test.
EXAMPLES ?= 3000
fuzz: $(VENV)/installed
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/test_fuzz.py

# Break the package on purpose in thirty places and see whether the tests notice: an hour. ONLY=text for some.
mutants: $(VENV)/installed
	$(BIN)/python -m pip install -qq --disable-pip-version-check pytest-cov
	rm -rf results/mutants
	$(BIN)/python tests/mutants.py $(ONLY)

# Speed beside the usual ways, contenders interleaved: ten minutes on the samples.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/speed.py train
	$(BIN)/python benchmarks/speed.py predict
	$(BIN)/python benchmarks/speed.py train --task ner --contenders stock switches ours
	$(BIN)/python benchmarks/speed.py predict --task ner

# The same on a GPU, with a model of BERT-base's shape, short and long texts, with torch.compile, too.
# DATA=../imdb for other long texts.
BENCH_GPU = $(BIN)/python benchmarks/speed.py train --model bert --batch-size 32 --batches 40 \
	--contenders lesson stock switches ours compiled --out results/speed_gpu.jsonl
bench-gpu: $(VENV)/installed
	$(BENCH_GPU) --max-length 128
	$(BENCH_GPU) --max-length 512 --data $(or $(DATA),joined)

# Plant faults in the samples, diagnose, fix: hours. Goes on where it was stopped; SEEDS="0 1 2" for other seeds.
bench-faults: $(VENV)/installed
	$(BIN)/python benchmarks/faults.py $(if $(SEEDS),--seeds $(SEEDS))

# uv installs what pip would, in a tenth of the time, from where pip is set to look for packages. Neither compiles every
# module of every package: Python compiles what it imports.
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A variable of uv, or else the setting of pip that means the same
setting = $(1)="$${$(1):-$$(echo "$$pip" | sed -n "s/^[^=]*\.$(2)='\(.*\)'$$/\1/p" | tail -n 1)}"
UV := pip="$$($(PIP) config list)" && $(call setting,UV_DEFAULT_INDEX,index-url) \
	$(call setting,UV_INDEX,extra-index-url) $(call setting,UV_FIND_LINKS,find-links) \
	$(call setting,UV_CONSTRAINT,constraint) $(call setting,SSL_CERT_FILE,cert) \
	UV_INDEX_STRATEGY=unsafe-best-match $(BIN)/uv pip install -q --python $(BIN)/python

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV)."
	@$(PIP) install -qq uv==0.13.9 && $(UV) -e . || { echo "uv cannot install here; pip does." && $(PIP) install -qq --no-compile -e .; }
	touch $@

clean:
	rm -rf $(VENV) results
