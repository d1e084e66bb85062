"""Brings the tables of a database up to date, for the command that does it."""

from __future__ import annotations

from ari_app.errors import AppError
from ari_app.records.store.address import Address
from ari_app.records.store.database import Database
from ari_app.records.store.log import CallLogUnavailable


async def upgrade(address: Address) -> str:
    """Upgrade: what was done, in a sentence.

    Raises:
        WrongVersion: The tables are of a newer program.
        CallLogUnavailable: The database cannot be used just now.
    """
    database = Database(address)
    try:
        before, after = await database.upgrade()
    except AppError:
        raise
    except Exception as error:
        raise CallLogUnavailable(database.explain(error)) from None
    finally:
        await database.close()
    if before == after:
        return f"{address.shown} is up to date (revision {after})."
    return f"{address.shown} now has revision {after}; it had {before or 'no tables'}."
