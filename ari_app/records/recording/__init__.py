"""Recordings of calls: written as the call goes, compressed after it, found again by its name."""
