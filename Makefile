# The daily commands; PYTHON is the interpreter of an environment with `pip install -e '.[dev]'`.
PYTHON ?= .venv/bin/python

.PHONY: check test pythons attack kills interrupts fuzz docs wheels licences bench history demo-picture

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest -n auto --dist loadfile

# The core on every Python that can be had: make pythons PYTHONS="/usr/bin/python3.10 /usr/bin/python3.13"
PYTHONS ?= $(wildcard /usr/bin/python3.10 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13)
pythons:
	$(PYTHON) .ci/pythons $(PYTHONS)

attack:
	$(PYTHON) tests/attack/inputs.py --inputs 50000
	$(PYTHON) tests/attack/faults.py --faults 300

kills:
	$(PYTHON) tests/attack/faults.py --faults 200 --fault SIGKILL

interrupts:
	$(PYTHON) tests/attack/interrupts.py --steps 10

# Five minutes of the C library's readers under clang's sanitizers, then a million files for the Python ones.
fuzz:
	cmake -S edgekd/capi -B build/fuzz -DEDGEKD_TESTS=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
	cmake --build build/fuzz --target fuzz
	$(PYTHON) tests/attack/inputs.py --inputs 1000000

docs:
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build

wheels:
	PYTHON=$(abspath $(PYTHON)) .ci/wheels

# CORE_PYTHON is the interpreter of an environment with a plain installation of the wheel.
licences:
	$(PYTHON) .ci/licences $(CORE_PYTHON) $(PYTHON)

bench:
	$(PYTHON) benchmarks/bench_haar.py
	$(PYTHON) benchmarks/render_tables.py

history:
	$(PYTHON) benchmarks/history.py

demo-picture:
	$(PYTHON) tests/scenes.py edgekd/demo.jpg
