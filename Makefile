# Every command of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3.11
DISTRIBUTION ?= bullseye
LAB := .venv/bin/python lab/lab.py
IMAGE := .venv/bin/python container/container.py
# podman with both of its runtimes (which of them works depends on the machine), its network and its pods;
# what makes images, unpacks Debian's sources, and calls.
PACKAGES := podman crun runc netavark aardvark-dns catatonit iptables mmdebstrap dpkg-dev openssh-client git \
  sip-tester baresip-core age ca-certificates chromium fonts-liberation gnupg iproute2 lua5.2 nftables postgresql procps \
  restic

# Taken as they are written, dollars and quotes included.
export LAB_CMD := $(value CMD)
export RELEASE MIRROR GIT PYTHON CORES ENGINE LABREDES_NAME
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

.venv/made: requirements.txt requirements-dev.txt
	@lab/ensure $(PACKAGES) >&2
	@echo "Creating the virtual environment .venv (about a minute, once)" >&2
	@$(PYTHON) -m venv --clear .venv >&2
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --requirement requirements-dev.txt >&2
	@tests/tools/sanity.sh --prime-venvs >&2
	@touch $@

.PHONY: tools
tools: .venv/made
	@lab/ensure $(PACKAGES) >&2

.PHONY: lab
lab: tools ## Create throwaway hosts here and run site.yml on them (HOSTS, DISTRIBUTION, RELEASE, MIRROR, GIT)
	@$(LAB) up --distribution $(DISTRIBUTION) $(if $(HOSTS),--hosts $(HOSTS))

.PHONY: lab-info
lab-info: tools ## Print where everything is on the lab host, as JSON
	@$(LAB) info

.PHONY: lab-ssh
lab-ssh: tools ## Run CMD='…' as root on the lab host, or a shell
	@$(LAB) ssh --cmd "$$LAB_CMD"

.PHONY: lab-down
lab-down: tools ## Remove the lab host; images and caches stay
	@$(LAB) down

.PHONY: image
image: tools ## Build the exchange as container images, with their SBOM (DISTRIBUTION, ENGINE, RELEASE, MIRROR, GIT)
	@$(IMAGE) image --distribution $(DISTRIBUTION)
	@$(IMAGE) sbom

.PHONY: image-run
image-run: tools ## Run the exchange in containers, or apply its changed inventory .image/inventory
	@$(IMAGE) up --distribution $(DISTRIBUTION)

.PHONY: image-info
image-info: tools ## Print where everything is on the running container, as JSON
	@$(IMAGE) info

.PHONY: image-down
image-down: tools ## Remove the containers; VOLUMES=1 removes their data, inventory and secrets too
	@$(IMAGE) down $(if $(VOLUMES),--volumes)

.PHONY: image-test
image-test: image ## Test the images and the running containers: limits, refusals, a reboot, calls (half an hour)
	@pytest tests/image

LINTS := lint-ansible lint-sanity lint-yaml lint-python lint-types lint-shell lint-spelling
# The project's own files, without the link in collections/ that leads back here.
FILES := git ls-files -z --cached --others --exclude-standard -- ':!collections'

.PHONY: lint $(LINTS)
lint: tools ## Run every linter, two at a time
	@$(MAKE) --jobs 2 --output-sync $(LINTS)

lint-ansible: ## ansible-lint, profile production
	@ansible-lint --offline --nocolor -q

lint-sanity: ## ansible-test sanity, on a copy
	@tests/tools/sanity.sh

lint-yaml: ## yamllint
	@$(FILES) | grep -z '\.ya\?ml$$' | xargs -0 yamllint --strict

lint-python: ## ruff, format and rules
	@status=0; ruff format --quiet --diff || status=1; ruff check --quiet || status=1; exit $$status

lint-types: ## mypy on plugins, lab and apir_py
	@mypy --no-error-summary

lint-shell: ## shellcheck, rendered templates included
	@.venv/bin/python tests/tools/shell_scripts.py

lint-spelling: ## codespell
	@$(FILES) | xargs -0 codespell

.PHONY: unit
unit: tools ## Run the tests that need no host, in seconds
	@pytest tests/unit apir_py/tests

.PHONY: test
test: lint ## Everything CI runs: lint, unit tests, the whole site with real calls
	@pytest --numprocesses 2 --no-loadscope-reorder tests/unit apir_py/tests tests/site tests/hosts --molecule

.PHONY: test-roles
test-roles: tools ## Run the Molecule scenarios of single roles, each on a host of its own
	@molecule test --all --exclude default

.PHONY: odd-hosts
odd-hosts: tools ## Run site.yml on hosts with databases of others, another Asterisk and odd settings, and from an offline kit
	@pytest tests/odd_hosts

.PHONY: fleet
fleet: tools ## Set up three hosts in one run, one of which dies in its middle, then upgrade in batches (10 minutes)
	@pytest tests/fleet

.PHONY: platforms
platforms: tools ## Set up and test an exchange on Debian 11, 12 and 13 with 22 or RELEASES, or on PLATFORMS (half an hour; GIT)
	@.venv/bin/python tests/tools/platforms.py $(PLATFORMS) $(if $(RELEASES),--releases $(RELEASES))

.PHONY: bundle
bundle: tools ## Collect what a run needs besides apt's packages, for a controller without upstream (INVENTORY, BUNDLE)
	@ansible-playbook playbooks/offline_kit.yml -i $(or $(INVENTORY),inventory) \
	  $(if $(BUNDLE),--extra-vars 'labredes_offline_kit_dir=$(BUNDLE)')

.PHONY: test-upgrade
test-upgrade: tools ## Upgrade Asterisk under calls, with builds that fail and killed runs, on a lab host of its own (half an hour)
	@pytest -rP tests/upgrade

.PHONY: docs
docs: tools ## Write the tables of variables in the roles' READMEs
	@.venv/bin/python tests/tools/readme_tables.py

.PHONY: screenshots
screenshots: tools ## Take the pictures of the page in docs/images
	@.venv/bin/python apir_py/tests/screenshots.py

.PHONY: cores
cores: tools ## Run the unit tests with each supported version of ansible-core, on Python 3.10 to 3.13 (CORES)
	@tests/tools/cores.sh

.PHONY: soak
soak: tools ## Kill 50 runs of the whole site on the lab host at random steps (over an hour; KILLS, SEED)
	@.venv/bin/python tests/tools/soak.py $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

.PHONY: nat
nat: tools ## Call through a router with port forwards, 100 times over each transport (CALLS)
	@.venv/bin/python tests/tools/nat.py $(if $(CALLS),--calls $(CALLS))

.PHONY: soak-senders
soak-senders: tools ## Send the lab host what honest senders send in a day, then wrong passwords (6 minutes; MINUTES)
	@.venv/bin/python tests/tools/soak_senders.py $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: soak-events
soak-events: tools ## Load the events service with 50 clients and 1,000 events a second for a minute, twice
	@.venv/bin/python apir_py/tests/load.py --seconds 60
	@.venv/bin/python apir_py/tests/load.py --seconds 60 --state

.PHONY: soak-records
soak-records: tools ## Kill and freeze PostgreSQL and the forwarder under 10,000 call records (2 minutes; SEED)
	@.venv/bin/python tests/tools/soak_records.py $(if $(SEED),--seed $(SEED))

.PHONY: drill
drill: tools ## Lose an exchange with all its data and bring it back, on two lab hosts one after the other (5 minutes)
	@.venv/bin/python tests/tools/drill.py

.PHONY: audit
audit: tools ## Attack the lab host with ssh-audit, Lynis and SIPVicious; interrupt its hardening at every step
	@.venv/bin/python tests/tools/audit.py

.PHONY: bench
bench: tools ## Measure new hosts, further runs and calls, and write docs/performance.md (an hour; PARTS)
	@lab/ensure socat
	@DISTRIBUTION=$(DISTRIBUTION) .venv/bin/python lab/bench.py $(PARTS)

.PHONY: profile
profile: tools ## Run site.yml on the lab host and print what each task costs, and its round trips (TAGS)
	@ANSIBLE_CALLBACK_PLUGINS=tests/tools/callback ANSIBLE_CALLBACKS_ENABLED=run_profile \
	  ansible-playbook site.yml -i .lab/inventory $(if $(TAGS),--tags $(TAGS))

.PHONY: bench-records
bench-records: tools ## Measure whether the journal of call records slows calls, and how soon records arrive, on the lab host
	@.venv/bin/python tests/tools/bench_records.py

.PHONY: bench-events
bench-events: tools ## Measure whether the events service slows calls, and how soon the page shows them, on the lab host
	@.venv/bin/python tests/tools/bench_events.py
