# `make bench` and `make test`: set-up and the job in one command each.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin

.PHONY: bench test lint setup constraints pictures clean

bench: $(VENV)/ready
	$(RUN)/python run_benchmark.py --suite high_sparsity --save best --latency

test: $(VENV)/ready lint
	$(RUN)/python -m pytest -q -n 2 --dist loadfile

lint: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

setup: $(VENV)/ready

# uv is much faster than pip but does not read PIP_FIND_LINKS by itself; without uv, pip does it.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install -q uv || true
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(RUN)/python -m uv pip install -q --compile-bytecode \
		--python $(RUN)/python -c constraints.txt -e '.[test]' \
		|| $(RUN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

# The exact versions, for every platform; edit a version, then run this. Torch is written without a local version, which
# fits the CPU build and the CUDA build.
constraints: $(VENV)/ready
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(RUN)/python -m uv pip compile -q \
		--universal --python-version 3.11 --no-header --no-annotate --extra test \
		-o constraints.txt pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' constraints.txt

# The pictures of README.md, from the committed results; needs chromium.
RUN_SHOWN = docs/runs/laboratory/high_sparsity
SHOT = chromium --headless --no-sandbox --hide-scrollbars
pictures: $(VENV)/ready
	$(RUN)/python -m leaderboard $(RUN_SHOWN) --out .page
	$(SHOT) --window-size=1280,1340 --screenshot=docs/page.png file://$(CURDIR)/.page/leaderboard.html
	$(SHOT) --window-size=390,3000 --screenshot=docs/page_narrow.png file://$(CURDIR)/.page/leaderboard.html
	cp .page/figures/*-plain-quality.png docs/quality.png
	cp .page/figures/*-plain-bytes.png docs/bytes.png
	cp .page/figures/*-plain-latency.png docs/latency.png
	rm -r .page
	$(RUN)/python -m leaderboard docs/runs/laboratory/structured --out .page
	cp .page/figures/*-plain-latency.png docs/structured_latency.png
	cp .page/figures/*-plain-units-tiny_paraphrase.png docs/structured_units.png
	rm -r .page
	$(RUN)/python -m leaderboard docs/runs/minilm/structured --out .page
	cp .page/figures/*-plain-latency.png docs/structured_minilm.png
	rm -r .page

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
