#!/bin/sh
# SQLite: with secure_delete on, the words of a deleted call stay readable in the file, in its FTS5 index.
#
# Call logs keep transcripts in SQLite and search them with FTS5, and data protection wants a deleted call
# to be gone from the file, too. `PRAGMA secure_delete = ON` "overwrites deleted content with zeros", so one
# expects that no word of a deleted row is left. The row itself is overwritten; but FTS5 deletes by writing
# a mark that the row is gone, and keeps the words in its segments until these are merged, which a quiet
# database may not do for months. FTS5's own option of the same name (`INSERT INTO index(index, rank)
# VALUES('secure-delete', 1)`, from SQLite 3.42 on, off by default) or an 'optimize' after the deletion
# removes them.
#
# Output seen:
#   apsw 3.54.1.0, SQLite 3.54.1, secure_delete 1
#   copies of a deleted call's word in the file:
#   secure_delete                               2 (expected: 0)
#   secure_delete, and FTS5's secure-delete     0
#   secure_delete, and FTS5's optimize          0
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0
cd "$work"
"$work/venv/bin/python" - <<'END'
import sys
from pathlib import Path

import apsw

WORD = "quetzalcoatl"
SCHEMA = """
CREATE TABLE calls(id INTEGER PRIMARY KEY, words TEXT);
CREATE VIRTUAL TABLE spoken USING fts5(words, content='calls', content_rowid='id');
CREATE TRIGGER kept AFTER INSERT ON calls BEGIN
  INSERT INTO spoken(rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER gone AFTER DELETE ON calls BEGIN
  INSERT INTO spoken(spoken, rowid, words) VALUES ('delete', old.id, old.words);
END;
"""


def left(name: str, first: str = "", last: str = "") -> int:
    """Keep 50 calls, delete the one with the word, and count the word in the file."""
    path = Path(f"{name}.db")
    database = apsw.Connection(str(path))
    database.execute("PRAGMA secure_delete = ON")
    database.execute(SCHEMA)
    if first:
        database.execute(first)
    for number in range(50):
        said = f"call {number} wants an appointment {WORD if number == 7 else ''}"
        database.execute("INSERT INTO calls(words) VALUES (?)", (said,))
    database.execute("DELETE FROM calls WHERE id = 8")
    if last:
        database.execute(last)
    assert not list(database.execute("SELECT rowid FROM spoken WHERE spoken MATCH ?", (WORD,)))
    database.close()
    return path.read_bytes().count(WORD.encode())


print(f"apsw {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}, secure_delete 1")
print("copies of a deleted call's word in the file:")
seen = {
    "secure_delete": left("plain"),
    "secure_delete, and FTS5's secure-delete": left(
        "option", first="INSERT INTO spoken(spoken, rank) VALUES ('secure-delete', 1)"
    ),
    "secure_delete, and FTS5's optimize": left(
        "optimized", last="INSERT INTO spoken(spoken) VALUES ('optimize')"
    ),
}
for name, count in seen.items():
    print(f"{name:<43} {count}{' (expected: 0)' if count else ''}")
first, *others = seen.values()
sys.exit(0 if first and not any(others) else "It behaves differently now.")
END
