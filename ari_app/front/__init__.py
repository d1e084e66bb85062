"""The process before several workers: it holds the dialplan's application and the HTTP interface.

It carries no call. `distributor` gives each arrival to a worker, `service` wires the process
together.
"""
