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

.PHONY: run test test-slow test-browser lint lab refresh fuzz bench bench-gpu bench-faults clean

run: $(VENV)/installed
	$(BIN)/python -m bert_helpers run $(NOTEBOOKS)

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python -m pytest --nbval --nbval-cell-timeout 1200 $(NOTEBOOKS)

# What takes over a minute: ten kills, ten runs at once, the notebook lines of README.
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# Every notebook in JupyterLab in Chromium, with screenshots in results/screenshots: a quarter of an hour. ONLY=04_ner for one.
test-browser: $(VENV)/installed
	$(BIN)/python -m pytest -m browser -rP tests/test_browser.py $(if $(ONLY),-k $(ONLY))

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

# Execute in place, so that the committed outputs are those of this code.
refresh: $(VENV)/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)
	$(BIN)/python docs/picture.py

# Damaged files and made-up input, new ones each time; half an hour with the default number of examples a test.
EXAMPLES ?= 3000
fuzz: $(VENV)/installed
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/test_fuzz.py

# Speed beside the usual ways, contenders interleaved: ten minutes on the samples.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/speed.py train
	$(BIN)/python benchmarks/speed.py predict
	$(BIN)/python benchmarks/speed.py train --task ner --contenders stock switches ours
	$(BIN)/python benchmarks/speed.py predict --task ner

# The same on a GPU, with a model of BERT-base's shape, short and long texts, attention without padding and torch.compile.
# DATA=../imdb for other long texts.
BENCH_GPU = $(BIN)/python benchmarks/speed.py train --model base --batch-size 32 --batches 40 \
	--contenders lesson stock switches ours packed compiled --out results/speed_gpu.jsonl
bench-gpu: $(VENV)/installed
	$(BENCH_GPU) --max-length 128
	$(BENCH_GPU) --max-length 512 --data $(or $(DATA),joined)

# Plant faults in the samples, diagnose, mend: hours. Goes on where it was stopped; SEEDS="0 1 2" for other seeds.
bench-faults: $(VENV)/installed
	$(BIN)/python benchmarks/faults.py $(if $(SEEDS),--seeds $(SEEDS))

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

clean:
	rm -rf $(VENV) results
