"""Faults to inject from outside: a TCP proxy that cuts, refuses, swallows and delays."""

from lab.faults.proxy import TcpProxy

__all__ = ["TcpProxy"]
