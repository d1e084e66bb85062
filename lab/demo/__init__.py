"""The demonstration: one command, one real call, and a picture of it.

A scripted softphone calls a real Asterisk, which hands the call to the service, which talks with
the practice agent. All of them run on loopback, on ports of their own.
"""

from lab.demo.result import DemoResult
from lab.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
