"""A tracking store of this machine, read without changing it.

MLflow's client writes to a store when it opens it: it migrates an sqlite database to its own
schema, for good, and its owners' older MLflow is locked out; in a directory it makes a trash
folder. So MLflow is given a copy of a database, migrated where it has to be, and a directory of
links to a store's experiments.

A database that no writer has open is copied under SQLite's own lock. Where a write-ahead log or a
journal lies next to it, SQLite itself would change them to read it: then the files are copied, and
compared with how they were before.

Source: SQLite, "Write-Ahead Logging", section 5 (read-only databases), and "Online Backup API".
"""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from adroit_publish.errors import SourceError

_SIDECARS = ("-wal", "-journal")
_WAL = b"\x02\x02"  # bytes 18 and 19 of a database in write-ahead mode
_COPIES = 5

State = tuple[tuple[int, int, int] | None, ...]
"""Inode, length and mtime of a database and its sidecars; None for one that is not there."""


_one_at_a_time = threading.Lock()
_snapshots: dict[tuple[Path, State], TemporaryDirectory[str]] = {}
"""Of this process: a plan of many flavors copies a database once, and a copy stays while another
thread may read it."""


def snapshot_of(database: Path) -> Path:
    """Returns a copy of an MLflow database that MLflow may open; the original is not changed.

    Raises:
        SourceError: It cannot be read, is not MLflow's, or is of a revision that the MLflow here
            does not know.
    """
    with _one_at_a_time:
        state = _state_of(database)
        if (database, state) not in _snapshots:
            _snapshots[database, state] = _take_snapshot(database)
        return Path(_snapshots[database, state].name) / "mlflow.db"


def _take_snapshot(database: Path) -> TemporaryDirectory[str]:
    """Returns a directory with a copy of a database as ``mlflow.db``."""
    directory = TemporaryDirectory(prefix="adroit-tracking-")
    copy = Path(directory.name) / "mlflow.db"
    try:
        _copy(database, copy)
        revision = _revision_of(copy, database)
    except (sqlite3.Error, OSError) as error:
        raise SourceError(
            "The tracking store cannot be read.",
            where=database,
            got=error,
            wanted="an MLflow database",
            next_step="check the target's tracking_uri in adroit.toml, and that the file may be "
            "read",
        ) from error
    _migrate(copy, revision, database)
    return directory


@contextmanager
def view_of(store: Path) -> Iterator[Path]:
    """Gives a directory of links to the experiments of a file store, for MLflow to open."""
    with TemporaryDirectory(prefix="adroit-tracking-") as directory:
        for entry in store.iterdir():
            (Path(directory) / entry.name).symlink_to(entry.absolute())
        yield Path(directory)


def _state_of(database: Path) -> State:
    def status(path: Path) -> tuple[int, int, int] | None:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_size, facts.st_mtime_ns

    return tuple(status(path) for path in (database, *_sidecars(database)))


def _sidecars(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in _SIDECARS]


def _copy(database: Path, copy: Path) -> None:
    with database.open("rb") as stream:
        is_wal = stream.read(20)[18:] == _WAL
    if is_wal or any(sidecar.exists() for sidecar in _sidecars(database)):
        for _ in range(_COPIES):
            before = _state_of(database)
            for part in (database, *_sidecars(database)):
                target = copy.with_name(part.name.replace(database.name, copy.name))
                target.unlink(missing_ok=True)
                with suppress(FileNotFoundError):  # a sidecar that is not there
                    shutil.copyfile(part, target)
            if _state_of(database) == before:
                return
        for leftover in copy.parent.iterdir():
            leftover.unlink()
    # A writer is at work, so whatever SQLite needs next to the database is there already.
    address = f"file:{quote(str(database))}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True)) as source,
        closing(sqlite3.connect(copy)) as target_database,
    ):
        source.backup(target_database)


def _revision_of(copy: Path, database: Path) -> str:
    with closing(sqlite3.connect(copy)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "runs" not in names:
            raise SourceError(
                "The file is not an MLflow tracking store.",
                where=database,
                got="a database without MLflow's tables",
                next_step="train a model first, or set the target's tracking_uri in adroit.toml",
            )
        if "alembic_version" not in names:
            return "none"
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else "none"


def _migrate(copy: Path, revision: str, database: Path) -> None:
    """Brings the copy of a database to the schema of the MLflow here."""
    import mlflow
    from mlflow.store.db import utils

    known = _known_revisions(Path(utils.__file__).parents[1] / "db_migrations" / "versions")
    (head,) = set(known) - set(known.values())
    if revision == head:
        return
    if revision not in known:
        raise SourceError(
            "The tracking database is of a revision that the MLflow here does not know.",
            where=database,
            got=f"revision {revision}",
            wanted=f"revision {head}, of mlflow {mlflow.__version__}, or an earlier one",
            next_step="install the mlflow that writes this database (pip install --upgrade "
            "mlflow), or set tracking_uri to the address of its tracking server",
        )
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{copy}")  # type: ignore[no-untyped-call]
    try:
        with quiet_migration():
            utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


@contextmanager
def quiet_migration() -> Iterator[None]:
    """Keeps MLflow's "Updating database tables" out of the log: it is of the copy."""
    logger = logging.getLogger("mlflow.store.db.utils")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _known_revisions(versions: Path) -> dict[str, str]:
    """Returns the revisions that an MLflow knows: each, and the one before it."""
    form = r'^revision = "(\w+)".*?^down_revision = (?:"(\w+)"|None)'
    texts = (path.read_text() for path in versions.glob("*.py"))
    matches = (re.search(form, text, re.DOTALL | re.MULTILINE) for text in texts)
    return {match[1]: match[2] or "" for match in matches if match}
