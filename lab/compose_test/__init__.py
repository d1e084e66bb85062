"""`make compose-test`: builds the lab in Docker, holds calls through it, and takes it down.

Uses the Docker Engine that runs here. Where none runs it starts one of its own, if it may, which
leaves no trace in the host's network and firewall.
"""
