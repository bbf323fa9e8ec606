# Two commands on a fresh machine: `make demo` and `make test`. Each does all set-up that is missing.
# PYTHON=… chooses the interpreter for .venv; PYTEST_ARGS=… goes to pytest.

PYTHON ?= python3
PYTEST_ARGS ?=
SHELL_SCRIPTS = .ci/run $(wildcard tools/*.sh)

.PHONY: help demo test labextension lint format bench docs machine clean

help:
	@echo "make demo     run notebooks/quickstart.ipynb in a container; everything needed is set up first"
	@echo "make test     run the whole test suite on the real engine (PYTEST_ARGS='-k interrupt')"
	@echo "make labextension  build the JupyterLab extension, and show it to the JupyterLab in .venv"
	@echo "make lint     format, lint, types, import rules, shell scripts"
	@echo "make format   let ruff rewrite what it can"
	@echo "make bench    measure a container kernel against a local one and renew the table in README.md"
	@echo "make docs     build the documentation into out/site"
	@echo "make clean    remove what the other targets made in this folder"

machine:
	@tools/setup-machine.sh

demo: machine
	@tools/setup-venv.sh "$(PYTHON)" test
	@tools/run-demo.sh

test:
	@tools/setup-machine.sh tests
	@tools/setup-venv.sh "$(PYTHON)" test
	@tools/build-labextension.sh "$(PYTHON)"
	@tools/run-tests.sh $(PYTEST_ARGS)

# Also for the JupyterLab of .venv, where there is one.
labextension:
	@tools/setup-venv.sh "$(PYTHON)" test
	@tools/build-labextension.sh "$(PYTHON)"
	@mkdir -p .venv/share/jupyter/labextensions
	@ln -sfn ../../../../jupyter_apptainer/labextension .venv/share/jupyter/labextensions/jupyter-apptainer

lint:
	@tools/setup-venv.sh "$(PYTHON)" test,lint
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/shellcheck --external-sources $(SHELL_SCRIPTS)

format:
	@tools/setup-venv.sh "$(PYTHON)" test,lint
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: machine
	@tools/setup-venv.sh "$(PYTHON)" test
	.venv/bin/jupyter-apptainer quickstart
	.venv/bin/python -m benchmarks --write-readme

docs:
	@tools/setup-venv.sh "$(PYTHON)" docs
	.venv/bin/mkdocs build --strict --site-dir out/site

clean:
	rm -rf .venv out build dist jupyter_apptainer/labextension labextension/lib labextension/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "engine and images stay in your own folder; 'jupyter apptainer engine info' says where"
