.PHONY: quickstart test cards check

quickstart:
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && .venv/bin/shoestring run averaging cpu

test:
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[test]' && .venv/bin/pytest -n 2

cards:
	.venv/bin/python docs/cards.py write

check:
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy
