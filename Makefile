# One command each; none needs another before it. `make` lists them.
#
# Everything runs from .venv, which is made on first use from requirements.lock (every file in it
# pinned by hash) and brought up to date when the lock changes. PYTHON=... names the interpreter
# to make it with; otherwise the first of python3, python3.13, python3.12, python3.11 that is
# 3.11 or newer and can make one.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo rehearse rollover-lab build_env test coverage zoo check reliability bench lock clean

python := .venv/bin/python
ready := .venv/.made-from-lock
checked := adroit adroit_publish metaflow_extensions  # flows are thin, and Metaflow makes their attributes at run time

# What is tested in the tests' own process, and not against the clock.
covered := tests/bundle tests/edge tests/rollover tests/git tests/test_decide.py tests/test_checkout.py \
    tests/evidence/test_kept_sitevars.py tests/stores/test_directory.py tests/gates/test_closure.py \
    tests/gates/test_env_contract.py tests/gates/test_replay.py tests/stores/test_ledger.py \
    tests/stores/test_changes.py tests/mlflow/test_mlmodel.py tests/serving/test_frames.py \
    tests/serving/test_reference.py tests/gates/test_secrets.py tests/gates/test_pickles_hostile.py \
    tests/gates/test_pickles_constructors.py tests/attestations/test_keys.py tests/cli/test_progress.py

# The kinds that `make test` skips. PyPI has no build of torch for the CPU alone: name one to have it.
zoo_kinds := catboost onnx prophet statsmodels xgboost$(if $(TORCH), torch)
empty :=
space := $(empty) $(empty)

# Metaflow refuses root, and an environment that names nobody (a bare container).
METAFLOW_USER ?= $(patsubst root,adroit,$(shell id -un 2>/dev/null || echo adroit))
export METAFLOW_USER

help: ## list these
	@sed -n 's/^\([a-z_-]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile | expand -t 18

# Links, not copies, to what the program imports of itself: an edit counts at once, and what else is
# in the checkout stays out of reach of a model that is verified.
install: $(ready) ## make .venv, with the program `adroit-publish` in it
	@site=$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	for each in adroit adroit_publish; do \
	    test -d "$$site/$$each" -a ! -L "$$site/$$each" || ln -sfn "$(CURDIR)/$$each" "$$site/$$each"; \
	done; \
	printf '#!/bin/sh\nexec "%s" -m adroit_publish "$$@"\n' "$(CURDIR)/$(python)" \
	    >.venv/bin/adroit-publish; \
	chmod +x .venv/bin/adroit-publish

demo: install ## train the example, publish the best run to this machine, list its versions
	@MLFLOW_TRACKING_URI= METAFLOW_DEFAULT_DATASTORE=local METAFLOW_DEFAULT_METADATA=local; \
	export MLFLOW_TRACKING_URI METAFLOW_DEFAULT_DATASTORE METAFLOW_DEFAULT_METADATA; \
	set -e; mkdir -p .adroit; \
	$(python) projects/example_metaflow/flow.py run --run-id-file .adroit/demo-run; \
	best=$$($(python) -c 'import sys, metaflow; metaflow.namespace(None); \
	    print(metaflow.Run("ExampleMetaflow/" + open(sys.argv[1]).read()).data.best_run_id)' \
	    .adroit/demo-run); \
	set -x; \
	$(python) publish_mlflow_model_flow.py run --flavor=example_metaflow \
	    --mlflow-run-id="$$best" --target=local; \
	$(python) -m adroit_publish versions example_metaflow --target=local; \
	set +x; \
	printf '%s\n' '' 'Next:' \
	    '  . .venv/bin/activate                          # this shell has the program now' \
	    '  adroit-publish serve example_metaflow         # then, in another shell:' \
	    '  adroit-publish predict http://127.0.0.1:8080 --example' \
	    '  adroit-publish --help                         # the other commands' \
	    'README.md says how a model of your own is published.'

rehearse: $(ready) ## publish the example to an Eng account played on loopback (S3, ECR)
	@$(python) -m tests.support.rehearse

rollover-lab: $(ready) ## roll over under load, and back from every state, with real servers (minutes)
	@$(python) -W ignore -m tests.labs.rollover_lab

build_env: $(ready) ## ENV=name [BASE=image] [TARGET=name]: bake a conda env into an image, push it
	@test "$(ENV)" || { echo 'build_env: say which, as conda_envs.yaml has it: ENV=sklearn' >&2; exit 2; }
	@$(python) -m adroit_publish build-env "$(ENV)" $(if $(BASE),--base "$(BASE)") \
	    $(if $(TARGET),--target "$(TARGET)")

test: $(ready) ## run the tests (ADROIT_REQUIRE_SERVERS=1: a missing server fails, not skips)
	@$(python) -m pytest -n 2 --dist loadfile

coverage: $(ready) ## run the tests of the rooms without servers, and hold their coverage to its floor
	@$(python) -m pytest -q -n 2 --dist loadfile --cov --cov-report=term $(covered)

zoo: .zoo/.made-from-locks ## models of packages that requirements.lock lacks; TORCH=REQUIREMENT adds torch
	@test -z "$(TORCH)" || .zoo/bin/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --only-binary=:all: "$(TORCH)"
	@ADROIT_REQUIRE_SERVERS=1 ADROIT_REQUIRE_ZOO=1 .zoo/bin/python -m pytest -n 2 -p no:cacheprovider \
	    tests/publish/test_model_zoo.py tests/publish/test_model_kinds.py \
	    -k "$(subst $(space), or ,$(zoo_kinds))"

check: $(ready) ## format, lint, types and dead code
	@$(python) -m ruff format --check .
	@$(python) -m ruff check .
	@$(python) -m mypy --strict $(checked)
	@$(python) -m vulture

reliability: $(ready) ## run tests/reliability at its full floors (hours)
	@ADROIT_FULL=1 $(python) -m pytest tests/reliability -s

bench: $(ready) ## run the benchmarks into benchmarks/report.md; with ONLY=P1,P5 those of these targets
	@$(python) benchmarks/run.py --only='$(ONLY)'

lock: ## re-make requirements.lock and tests/zoo.lock; pins that still fit stay
	@command -v uv >/dev/null || { echo 'lock: needs `uv` on the PATH' >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header \
	    --group pyproject.toml:dev pyproject.toml --output-file requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-deps \
	    --no-emit-index-url --no-emit-find-links --no-header --constraint requirements.lock \
	    tests/zoo.in --output-file tests/zoo.lock
	@! grep -nE '://|file:|(^|[ (@])/' requirements.lock tests/zoo.lock || \
	    { echo 'lock: the lines above hold an address or a path' >&2; exit 1; }

clean: ## delete .venv and caches; trained runs and published bundles (.adroit) stay
	rm -rf .venv .zoo .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-deps: the lock is complete. --only-binary: nothing is built, so nothing unpinned is run.
$(ready): requirements.lock
	@found=; \
	for each in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	    "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    found=$$each; \
	    "$$each" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "making .venv with $$("$$each" --version); some minutes the first time"; \
	    "$$each" -m venv .venv && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
	        --require-hashes --no-deps --only-binary=:all: -r requirements.lock && \
	    touch $@; exit; \
	done; \
	if [ "$$found" ]; then \
	    echo "$$found lacks the module ensurepip; on Debian and Ubuntu: apt install python3-venv"; \
	else \
	    echo 'needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3'; \
	fi >&2; exit 1

.zoo/.made-from-locks: $(ready) requirements.lock tests/zoo.lock
	@$(python) -m venv --clear .zoo
	@.zoo/bin/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --no-deps --only-binary=:all: -r requirements.lock
	@.zoo/bin/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --no-deps --only-binary=:all: -r tests/zoo.lock
	@touch $@
