"""Several machines on one machine: `make cluster-test`, see docs/scaling.md."""
