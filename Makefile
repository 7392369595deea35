# Every command of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3.11
DISTRIBUTION ?= bullseye
LAB := .venv/bin/python lab/lab.py
# podman with both of its runtimes (which of them works depends on the machine) and its network;
# what makes images, unpacks Debian's sources, and calls.
PACKAGES := podman crun runc netavark aardvark-dns iptables mmdebstrap dpkg-dev openssh-client git sip-tester \
  ca-certificates lua5.2

# Taken as they are written, dollars and quotes included.
export LAB_CMD := $(value CMD)
export RELEASE MIRROR GIT PYTHON
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

.venv/made: requirements.txt
	@lab/ensure $(PACKAGES) >&2
	@echo "Making the virtual environment .venv (about a minute, once)" >&2
	@$(PYTHON) -m venv --clear .venv >&2
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --requirement requirements.txt >&2
	@touch $@

.PHONY: tools
tools: .venv/made
	@lab/ensure $(PACKAGES) >&2

.PHONY: lab
lab: tools ## Make a throwaway host here and run site.yml on it (DISTRIBUTION, RELEASE, MIRROR, GIT)
	@$(LAB) up --distribution $(DISTRIBUTION)

.PHONY: lab-info
lab-info: tools ## Print where everything is on the lab host, as JSON
	@$(LAB) info

.PHONY: lab-ssh
lab-ssh: tools ## Run CMD='…' as root on the lab host, or a shell
	@$(LAB) ssh --cmd "$$LAB_CMD"

.PHONY: lab-down
lab-down: tools ## Remove the lab host; images and caches stay
	@$(LAB) down

.PHONY: lint
lint: tools ## Check the style of everything
	@git ls-files -z --cached --others --exclude-standard -- '*.yml' '*.yaml' | xargs -0 yamllint --strict
	@ansible-lint --offline

.PHONY: unit
unit: tools ## Run the tests that need no host, in seconds
	@pytest tests/unit

.PHONY: test
test: lint ## Everything CI runs: lint, unit tests, the whole site with real calls
	@pytest tests/unit tests/site --molecule

.PHONY: docs
docs: tools ## Write the tables of variables in the roles' READMEs
	@.venv/bin/python tests/tools/readme_tables.py

.PHONY: audit
audit: tools ## Attack the lab host with other people's tools and kill its hardening at every step
	@.venv/bin/python tests/tools/audit.py

.PHONY: bench
bench: tools ## Measure making a lab, running on it again, and 200 calls; fail where a limit is missed
	@DISTRIBUTION=$(DISTRIBUTION) .venv/bin/python lab/bench.py
