"""A tracking store of somebody else is read, and nothing of it is changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from adroit_publish.errors import SourceError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.mlflow.snapshot import snapshot_of
from adroit_publish.mlflow.tracking import check_tracking_store
from tests.servers.mlflow_servers import RUN_ID, log_model
from tests.support.requirements import require

OF_MLFLOW_2_22 = "0584bdc529eb"


def state_of(directory):
    """Returns every file of a directory, its bytes and its time."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def newest_revision():
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    config = utils._get_alembic_config("sqlite://")
    return ScriptDirectory.from_config(config).get_current_head()


def old_database(directory, revision=OF_MLFLOW_2_22):
    """Makes a database as MLflow 2.22 left it, with one finished run; returns its address."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    file = directory / "mlflow.db"
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
    InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    model = directory / "artifacts" / RUN_ID / "artifacts" / "model"
    model.mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}\n")
    history = json.dumps([{"run_id": RUN_ID, "artifact_path": "model", "model_uuid": "u"}])
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            "VALUES (1, 'old', ?, 'active')",
            [(directory / "artifacts").as_uri()],
        )
        database.execute(
            "INSERT INTO runs (run_uuid, name, status, lifecycle_stage, artifact_uri, "
            "experiment_id, start_time, end_time, user_id, source_name, source_type, "
            "entry_point_name, source_version) "
            "VALUES (?, 'tiny', 'FINISHED', 'active', ?, 1, 1, 2, 'jane', '', 'LOCAL', '', '')",
            [RUN_ID, model.parent.as_uri()],
        )
        database.execute(
            "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.log-model.history', ?, ?)",
            [history, RUN_ID],
        )
    return f"sqlite:///{file}"


def test_a_database_of_an_older_mlflow_is_read_and_left_as_it_is(tmp_path):
    uri = old_database(tmp_path)
    before = state_of(tmp_path)
    assert resolve_model(uri, RUN_ID, None).name == "model"
    assert state_of(tmp_path) == before
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT * FROM alembic_version").fetchall() == [(OF_MLFLOW_2_22,)]


def test_a_database_of_a_newer_mlflow_is_refused_with_both_revisions(tmp_path):
    uri = old_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'f00dfeedbeef'")
    before = state_of(tmp_path)
    for read in (check_tracking_store, lambda uri: resolve_model(uri, RUN_ID, None)):
        with pytest.raises(SourceError, match="revision") as refused:
            read(uri)
        assert "f00dfeedbeef" in refused.value.got
        assert "revision " in refused.value.wanted
        assert "mlflow" in refused.value.next_step
    assert state_of(tmp_path) == before


def test_a_database_of_the_mlflow_here_is_left_as_it_is(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id, _ = log_model(uri, tmp_path / "artifacts", "model")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")  # to open it is to make files next to it
    before = state_of(tmp_path)
    resolve_model(uri, run_id, None)
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_database_with_a_write_ahead_log_is_read_with_what_is_only_in_the_log(
    tmp_path, is_closed
):
    uri = old_database(tmp_path)
    writer = sqlite3.connect(tmp_path / "mlflow.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    with writer:
        writer.execute("UPDATE runs SET name = 'in the log'")
    if is_closed:
        writer.close()
    before = state_of(tmp_path)
    assert resolve_model(uri, RUN_ID, None).run_name == "in the log"
    assert state_of(tmp_path) == before
    writer.close()


@contextmanager
def writing(database, mode):
    """Lets somebody write to a database all the time; gives the number of writes so far."""
    stop, writes = threading.Event(), []

    def write():
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            while not stop.is_set():
                with connection:
                    connection.execute("UPDATE experiments SET name = ?", [f"old {len(writes)}"])
                writes.append(None)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while not writes:
            time.sleep(0.01)
        yield writes
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("mode", ["DELETE", "WAL", "PERSIST"])
def test_a_database_that_is_being_written_is_read_and_its_writer_goes_on(tmp_path, mode):
    uri = old_database(tmp_path)
    with writing(tmp_path / "mlflow.db", mode) as writes:
        for _ in range(3):
            assert resolve_model(uri, RUN_ID, None).name == "model"
            seen = len(writes)
            deadline = time.monotonic() + 30
            while len(writes) == seen:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_copy_that_a_writer_came_between_is_taken_again(tmp_path, monkeypatch):
    """The database as it was, and the log as it is since, are together neither."""
    old_database(tmp_path)
    writer = sqlite3.connect(tmp_path / "mlflow.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    with writer:
        writer.execute("UPDATE runs SET name = 'in the log'")
    copyfile, copied = shutil.copyfile, []

    def copy_and_let_a_writer_in(source, target):
        copyfile(source, target)
        copied.append(source)
        if len(copied) == 1:  # what was only in the log goes into the database, and the log ends
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    monkeypatch.setattr(shutil, "copyfile", copy_and_let_a_writer_in)
    with closing(sqlite3.connect(snapshot_of(tmp_path / "mlflow.db"))) as copy:
        assert copy.execute("SELECT name FROM runs").fetchall() == [("in the log",)]
    writer.close()


def test_a_run_that_ends_between_two_reads_is_seen(tmp_path):
    uri = old_database(tmp_path)
    resolve_model(uri, RUN_ID, None)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET name = 'renamed'")
    assert resolve_model(uri, RUN_ID, None).run_name == "renamed"


def test_a_database_in_a_directory_that_may_not_be_written_is_read(tmp_path):
    uri = old_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
    with mounted_read_only(tmp_path):
        assert resolve_model(uri, RUN_ID, None).name == "model"


@contextmanager
def mounted_read_only(directory):
    """Makes a directory one that nobody may write to, root included."""
    bind = ["mount", "--bind", str(directory), str(directory)]
    done = subprocess.run(bind, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"a directory cannot be mounted: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(directory)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (directory / "file").touch()
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_nothing_is_made_in_a_file_store(tmp_path):
    store = tmp_path / "mlruns"
    store.mkdir()
    run_id, _ = log_model(store.as_uri(), tmp_path / "artifacts", "model")
    (store / ".trash").rmdir()
    before = state_of(tmp_path)
    assert resolve_model(store.as_uri(), run_id, None).name == "model"
    with mounted_read_only(tmp_path):
        assert resolve_model(store.as_uri(), run_id, None).name == "model"
    assert state_of(tmp_path) == before


def test_a_store_leaves_nothing_in_the_directory_for_temporary_files(tmp_path, monkeypatch):
    uri = old_database(tmp_path)
    (tmp_path / "tmp").mkdir()
    code = "from adroit_publish.mlflow.model import resolve_model as resolve; import sys\n"
    code += "resolve(*sys.argv[1:], None)"
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    subprocess.run([sys.executable, "-c", code, uri, RUN_ID], check=True, env=environment)
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("adroit")]


def test_a_copy_stays_while_other_threads_of_a_plan_take_and_read_theirs(tmp_path):
    """One that went before it was opened was an empty database to MLflow, without any run."""
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database)) as made, made:
        made.execute("CREATE TABLE runs (id TEXT)")
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES (?)", [newest_revision()])
    together = threading.Barrier(8)

    def take(_number):
        together.wait()
        copy = snapshot_of(database)
        together.wait()
        return copy, copy.exists()

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert taken == [(taken[0][0], True)] * 8
