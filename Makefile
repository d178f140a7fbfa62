# The repository's commands. Each does its own set-up, which deploy/setup/setup.sh explains.

CACHE := $(or $(COPILOT_CACHE),.cache)
PYTHON := "$(CACHE)/venv/bin/python"
SETUP := sh deploy/setup/setup.sh
CHECK := sh deploy/setup/check.sh

.PHONY: help demo demo-boinc test simulate faults bench fresh lint unit vm boinc image launcher lock clean clean-all
.NOTPARALLEL:

help:
	@echo "make demo       run eight physics jobs in a real virtual machine; results in demo-out/"
	@echo "                ARGS='--jobs 2 --events 5' makes it a small one; TRANSPORT=xmpp talks over XMPP"
	@echo "make demo-boinc the same, but the real BOINC client starts the launcher and grants the credit"
	@echo "make test       every check: lint, launcher, tests without a VM, image, tests with a VM"
	@echo "make lint       formatting, types, import rules, shell scripts"
	@echo "make unit       the tests that start no VM"
	@echo "make image      build the VM image if it is not there or out of date"
	@echo "make launcher   build the launcher as one file that needs no Python: dist/vm-launcher"
	@echo "make vm         the tests that start a VM (builds the image first)"
	@echo "make boinc      all tests with the real BOINC client, also the long ones (builds what they need)"
	@echo "make simulate   schedules of faults in virtual time; SEEDS=20000 says how many, SEEDS=seed:4711"
	@echo "                replays one with its trace; BASE=N is the first seed (drawn if not given);"
	@echo "                ARGS='--carrier xmpp' (or http) has all pilots talk over that"
	@echo "make faults     kill, stop, part and fill real processes at every step of a job's life;"
	@echo "                CELL=s5-agent-kill SEED=7 is one cell again, ARGS=--no-vm starts no VM"
	@echo "make fresh      both commands in a new, bare Debian 12; ONLY=demo, test or demo-boinc for one; logs in fresh-out/"
	@echo "make bench      measure beside peers, into bench-out/ and docs/measurements.md; ONLY=name for one,"
	@echo "                ARGS=--list says which there are"
	@echo "make lock       write requirements/*.txt anew; UPGRADE=1 takes the newest versions"
	@echo "make clean      remove outputs; clean-all also the cache ($(CACHE))"

demo:
	@$(SETUP) demo
	@$(if $(filter xmpp,$(TRANSPORT)),$(SETUP) packages prosody)
	@$(CHECK) image
	@$(PYTHON) -m deploy.demo $(if $(TRANSPORT),--transport $(TRANSPORT)) $(ARGS)

demo-boinc:
	@$(SETUP) demo
	@$(SETUP) launcher
	@$(SETUP) packages boinc-client $(if $(filter xmpp,$(TRANSPORT)),prosody)
	@$(CHECK) launcher image
	@$(PYTHON) -m deploy.demo --boinc $(if $(TRANSPORT),--transport $(TRANSPORT)) $(ARGS)

test:
	@$(SETUP) test
	@$(CHECK) lint launcher unit image vm

lint:
	@$(SETUP) test
	@$(CHECK) lint

unit:
	@$(SETUP) test
	@$(CHECK) launcher unit

image:
	@$(SETUP) demo
	@$(CHECK) image

launcher:
	@$(SETUP) launcher
	@out=dist/vm-launcher $(CHECK) launcher

vm:
	@$(SETUP) test
	@$(CHECK) launcher image vm

boinc:
	@$(SETUP) test
	@$(CHECK) launcher image boinc

simulate:
	@$(SETUP) test
	@$(PYTHON) -m tests.simulation $(SEEDS) $(if $(BASE),--base $(BASE)) $(ARGS)

faults:
	@$(SETUP) test
	@$(CHECK) image
	@$(PYTHON) -m tests.faults $(CELL) $(if $(SEED),--seed $(SEED)) $(ARGS)

fresh:
	@$(SETUP) packages mmdebstrap
	@/usr/bin/python3 -m deploy.setup.fresh $(ONLY)

bench:
	@$(SETUP) bench
	@$(if $(filter-out boinc,$(ONLY)),,$(SETUP) launcher && $(CHECK) launcher image)
	@$(PYTHON) -m tests.bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

lock:
	@sh deploy/setup/lock.sh $(if $(UPGRADE),--upgrade)

clean:
	rm -rf demo-out bench-out fresh-out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

clean-all: clean
	rm -rf "$(CACHE)" *.egg-info
