"""Calls of a dialer of one's own, which brings the sound over a WebSocket; see
docs/custom-dialer.md."""
