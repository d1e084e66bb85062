"""Commands beside `serve` and `check`: each does one thing in the terminal, and ends."""
