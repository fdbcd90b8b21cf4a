# make demo and make test set up everything that they need; the rest is for contributors.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BUSY ?= 10
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := openai2 openai3 langchain litellm instructor vercel attestations cosign uvloop

.PHONY: demo test fast engine test-all services docker busy hostile audit check lint fix clients golden bench bench-short scale-faults mutants reference pictures docs wheel clean

demo: $(VENV)/.run ## The whole way on a tiny model, on CPU
	$(BIN)/deploytk demo

test: fast hostile engine ## The tests that need nothing but Python, the hostile ones (counted) among them

test-all: test clients $(VENV)/.services ## ... and those with real services: Chromium, registries, git servers, Docker (Debian packages: .ci/packages)
	$(MAKE) --no-print-directory --jobs=2 --output-sync services docker

fast: $(VENV)/.test ## All tests but the hostile ones and those that start an engine or a service
	$(BIN)/python -m pytest -n $(WORKERS) --without-hostile

engine: $(VENV)/.test ## Those that start the CPU engine
	$(BIN)/python -m pytest -m engine

services: $(VENV)/.services ## Those with real services, without Docker
	$(BIN)/python -m pytest -m services -n 2

docker: $(VENV)/.services ## Those with a Docker of their own
	$(BIN)/python -m pytest -m docker

busy: WORKERS = 8 # as many as there are others, which share the cores with them
busy: $(VENV)/.test ## The fast tests again and again on a busy machine, beside stress-ng (a Debian package); BUSY=10 times
	stress-ng --cpu 8 --quiet & trap "kill $$!" EXIT; \
	for round in $$(seq $(BUSY)); do $(MAKE) --no-print-directory fast WORKERS=$(WORKERS) || exit 1; done

clients: $(CLIENTS:%=$(VENV)/clients/%/.ready) ## OpenAI's clients and those of others, sigstore-js, cosign, readers of SBOMs and uvloop, each in an environment of its own

hostile: $(VENV)/.test ## Every hostile suite (models, clients, servers, hubs), counted: three minutes on two cores
	$(BIN)/python tests/hostile.py

audit: $(VENV)/.audit ## Known vulnerabilities of all that is locked, unsafe workflows; fails where no service can be asked
	$(BIN)/python tools/audit.py

check: lint test ## What a pull request must pass

lint: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/.check ## Repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.test ## Rewrite the golden files; review the diff like code
	$(BIN)/python -m pytest tests/test_bundle.py tests/test_golden_pages.py tests/test_plan_golden.py tests/test_smoke_golden.py tests/test_messages.py tests/test_scale.py --rewrite-golden

bench: $(VENV)/.bench ## Every benchmark that this machine can run, at full size: half an hour
	$(BIN)/python -m benchmarks

bench-short: $(VENV)/.bench ## ... at the smallest size: they only have to finish
	$(BIN)/python -m benchmarks --short

scale-faults: $(VENV)/.ray ## Ray on three hosts of one machine, broken in every way: needs root; FAULTS="--short" or names of faults
	$(BIN)/python -m benchmarks.scale_faults $(FAULTS)

mutants: $(VENV)/.mutants ## Small faults planted in the core rooms: does a test find each? MUTANTS="plan --count 24 --seed 1 2"
	$(BIN)/python -m tests.mutants $(MUTANTS)

reference: $(VENV)/.test ## Rewrite docs/reference from the command line and the data files
	$(BIN)/python tools/write_reference.py

pictures: $(VENV)/.services ## Take the pictures of the README and of the chat page anew
	$(BIN)/python tools/take_pictures.py
	DEPLOYTK_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -q -m services tests/test_app_page.py tests/test_app_visitors.py

docs: $(VENV)/.docs ## The site, into site/; a warning and a link that leads nowhere are errors
	$(BIN)/zensical build --strict --clean
	$(BIN)/python tools/check_site.py site

wheel: $(VENV)/.check
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[cpu,ui]"
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group test
	touch $@

$(VENV)/clients/vercel/.ready: tests/clients/package.json tests/clients/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm ci --silent --no-audit --no-fund
	touch $@

$(VENV)/clients/cosign/.ready: tests/clients/install_cosign.sh
	$< $(@D)
	touch $@

$(VENV)/clients/%/.ready: tests/clients/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

$(VENV)/.services: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group services
	$(BIN)/python -m pip install --quiet --no-deps "kubernetes>=37" # it and moto's boto3 name different python-dateutils
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

$(VENV)/.ray: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable ".[ray]"
	touch $@

$(VENV)/.mutants: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group mutants
	touch $@

$(VENV)/.docs: $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

$(VENV)/.audit: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group audit
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group check
	touch $@
