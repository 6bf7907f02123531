# Every target does its own set-up: the first one makes .venv from the requirements, at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install help demo test commands notebooks widths slow applications lint docs site bench networks soak fuzz models micro arm64 distributed clean

demo: .venv/installed  ## the whole job on scikit-learn's digits: train, export, verify, report
	$(BIN)/python -m qkd_tf.train --flagfile=configs/demo.flags
	$(BIN)/python -m tflite_export --run_dir=runs/demo

test: .venv/installed  ## the test suite, a file at a time on each of 2 cores, the long files first
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

commands: .venv/installed  ## every command of README and docs, cut short, and the pre-flight of every config: some minutes
	$(BIN)/python -m pytest -m "commands or not distributed" tests/docs/test_commands.py tests/test_configs.py

notebooks: .venv/installed  ## the notebooks of examples/, with fewer epochs: a minute
	$(BIN)/python -m pytest -m "notebooks or not distributed" tests/examples/test_notebooks.py

widths: .venv/installed  ## every pair of bit widths, from student to file, on every runtime, and their tables: some minutes
	$(BIN)/python -m pytest -m "widths or not distributed" tests/tflite_export/test_widths.py \
		tests/tflite_export/rebuilding/test_rebuild.py tests/tflite_export/flatbuffer/test_compress.py

applications: .venv/installed  ## networks of keras.applications as Keras 3 builds them, each compared with what is read: a minute
	$(BIN)/python -m pytest -m "applications or not distributed" tests/qkd_tf/models/keras3/test_conversion.py

slow: .venv/installed  ## tests of more than two seconds: whole trainings, kills, examples, two replicas, a short soak
	$(BIN)/python -m pytest -m 'slow and not commands' -n 2 --dist loadfile --no-loadscope-reorder

distributed: .venv/installed  ## what several replicas do when things go wrong: some minutes
	$(BIN)/python -m pytest -m distributed -s

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --config pyproject.toml
	$(BIN)/mypy

docs: .venv/installed  ## docs/flags.md from the code, tables and pictures from the results
	$(BIN)/python -m docs.flags
	$(BIN)/python -m docs.results
	$(BIN)/python -m docs.pictures

site: .venv/installed  ## the documentation site, into build/site: a warning, such as of a broken link, fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

micro: .venv/installed build/tflm  ## the microcontroller bundle of every operator, compiled with TFLM's C++ and run; TFLM=DIR also runs it on emulated boards
	$(BIN)/python -m pytest tests/tflite_export/bundles/test_micro_bundle.py
	$(if $(TFLM),$(BIN)/python -m pytest -m boards --tflm='$(TFLM)' tests/tflite_export/bundles/test_micro_boards.py,@echo 'skipped: emulated boards, for want of TFLM: make micro TFLM=DIR')

arm64: .venv/installed build/arm64/installed  ## what files compute on ARM64, by emulation; goes on where it was stopped: make arm64 RUNS='runs/demo …'
	$(BIN)/python -m benchmarks.arm64 $(RUNS)

bench: .venv/installed  ## speed and memory against full precision and the stock file, in one run
	$(BIN)/python -m benchmarks.bench

networks: .venv/installed  ## every named network to a verified file: make networks FLAGS='--dataset=… --data_dir=…'
	$(BIN)/python -m benchmarks.networks_table $(FLAGS)

soak: .venv/installed  ## kills, damaged files, full disks: what a run survives; goes on where it was stopped
	$(BIN)/python -m benchmarks.soak

fuzz: .venv/installed  ## 10,000 damaged files and handoffs: each must end in a line, none in a native interpreter
	$(BIN)/python -m pytest tests/tflite_export/test_hostile.py -k random_damage --fuzz_inputs=10000 -q

models: .venv/installed  ## 500 students and 500 teachers as people write them: each is the same in a file, or refused in a line
	$(BIN)/python -m pytest tests/test_drawn_models.py --drawn_models=500 --drawn_results=results/drawn_models.json -q

install: .venv/installed  ## .venv alone, which every other target makes too: some minutes, 2.8 GB

help:  ## what can be made
	@sed -n 's/^\([a-z0-9]*\):.*  ## \(.*\)/make \1 - \2/p' Makefile | sort

clean:  ## the environment and the demo; other runs are kept
	rm -rf .venv runs/demo build/tflm build/arm64 build/boards

# Headers and a host library of TFLM as XMOS builds it: the one package that has both. For this check only.
build/tflm:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ xmos-ai-tools==1.4.2

# QEMU, an arm64 Python and aarch64 wheels, unpacked; packages of Debian come from DEBIAN_MIRROR, or where apt has them from.
build/arm64/installed: constraints.txt | .venv/installed
	$(BIN)/python -m benchmarks.processor $(DEBIAN_MIRROR)

.venv/installed: requirements.txt requirements-dev.txt requirements-micro.txt requirements-ethos_u.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is %d.%d; name another: make PYTHON=python3.13 ..." % sys.version_info[:2])'
	@echo "installing into .venv: 2.8 GB, some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-r requirements.txt -r requirements-dev.txt -r requirements-micro.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--config-settings editable_mode=compat --editable .  # by path: a folder that holds the clone must not hide it
	touch $@
