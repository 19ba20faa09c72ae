# Everything is done by scripts/setup.py, which works without make too:
#   python scripts/setup.py demo|sweep-demo|test|test-hosts|host|docs|clean [--version 0.24.1]
# VERSION chooses one of the listed ComfyUI versions, PYTHON the interpreter (3.11 or newer).

ifeq ($(OS),Windows_NT)
PYTHON ?= python
else
PYTHON ?= python3
endif

.PHONY: demo sweep-demo test test-hosts host docs clean

demo sweep-demo test test-hosts host docs:
	@$(PYTHON) scripts/setup.py $@ $(if $(VERSION),--version $(VERSION))

clean:
	@$(PYTHON) scripts/setup.py clean
