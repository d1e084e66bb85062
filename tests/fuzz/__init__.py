"""Fuzzing what is read from others: see docs/development.md.

`targets.py` has a function for each parser, which raises only for a real fault. `engine.py` changes
real messages at random and tries them; `python -m tests.fuzz` lets atheris do it, guided by
coverage, where atheris is installed.
"""
