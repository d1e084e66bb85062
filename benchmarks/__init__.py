"""What the product costs and how it sounds, measured: `python -m benchmarks all`."""
