"""The call log: what is kept of calls that have ended.

A document that is handed over goes to a journal on disk first and from there into the database, so
that neither a slow disk nor a database that is away makes a call wait, or is the loss of one.
`log.py` is what others hold; nothing that it imports needs SQLAlchemy, which is imported in a
thread of the log's, or by whoever asks for it.
"""
