"""Models that Databricks keeps, against a workspace by API shape."""

from __future__ import annotations

import random
import time
import traceback
from pathlib import Path

import pytest

from adroit_publish.artifacts import databricks as databricks_artifacts
from adroit_publish.artifacts.location import artifact_location
from adroit_publish.artifacts.pull import pull_model
from adroit_publish.errors import ModelNotFound, RefusedError, SourceError
from adroit_publish.mlflow.model import resolve_model
from tests.servers.fake_databricks import ROOTS, SIGNATURE, TOKEN, FakeDatabricks
from tests.servers.mlflow_servers import MODEL_ID, RUN_ID, free_port, send

BIG = random.Random(1).randbytes(3 << 20)
FILES = {
    "MLmodel": b"flavors: {}\n",
    "data/big.bin": BIG,
    "data/a b/\u00fc%41+.txt": b"odd",
    "empty": b"",
    **{f"code/f{number}.py": b"x" * number for number in range(7)},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without a ~/.databrickscfg."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def log_in(monkeypatch):
    def to(workspace):
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)

    return to


def contents(pulled):
    found = {}
    for path, file in pulled.files.items():
        with file.open() as stream:
            found[path] = stream.read()
    return found


def pull(cache, tracking_uri="databricks", **options):
    model = resolve_model(tracking_uri, RUN_ID, None)
    return contents(pull_model(model, cache, give_up_after_s=1, **options))


def secretless(error):
    """Returns everything a traceback would print, once no secret is found in it."""
    text = "".join(traceback.format_exception(error)) + str(error) + repr(error.as_dict())
    assert SIGNATURE not in text
    assert TOKEN not in text
    return text


# Where the model is


@pytest.mark.parametrize("kind", ["run", "model", "volume"])
def test_a_model_is_found_and_pulled_wherever_databricks_keeps_it(tmp_path, log_in, kind):
    with FakeDatabricks(kind=kind, files=FILES).running() as workspace:
        log_in(workspace)
        model = resolve_model("databricks", RUN_ID, None)
        pulled = pull_model(model, tmp_path)
    assert model.model_id == (None if kind == "run" else MODEL_ID)
    assert {file.path: file.size_bytes for file in model.files} == {
        path: len(data) for path, data in FILES.items()
    }
    assert contents(pulled) == FILES


@pytest.mark.parametrize("kind", ["run", "model"])
def test_the_fake_is_one_that_mlflows_own_client_takes(tmp_path, log_in, kind):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with FakeDatabricks(kind=kind, files=FILES).running() as workspace:
        log_in(workspace)
        repository = get_artifact_repository(ROOTS[kind], tracking_uri="databricks")
        got = repository.download_artifacts("model" if kind == "run" else "", str(tmp_path))
    assert {path: Path(got, path).read_bytes() for path in FILES} == FILES


def test_large_files_are_read_as_ranges_and_addresses_are_signed_many_at_once(
    tmp_path, log_in, monkeypatch
):
    monkeypatch.setattr(databricks_artifacts, "PIECE_BYTES", 1 << 18)
    monkeypatch.setattr(databricks_artifacts, "SIGNED_AT_ONCE", 4)
    with FakeDatabricks(files=FILES).running() as workspace:
        log_in(workspace)
        assert pull(tmp_path) == FILES
    ranged = [asked for asked in workspace.fetched if "range" in asked.headers]
    assert len(ranged) == 12
    assert workspace.count("credentials-for-download") == -(-len(FILES) // 4)


def test_no_credential_goes_to_the_storage_and_none_of_netrc(tmp_path, log_in, home):
    with FakeDatabricks(files=FILES).running() as workspace:
        log_in(workspace)
        model = resolve_model("databricks", RUN_ID, None)
        (home / ".netrc").write_text("machine 127.0.0.1 login me password canary\n")
        pull_model(model, tmp_path)
    assert len(workspace.fetched) >= len(FILES)
    assert not any("authorization" in asked.headers for asked in workspace.fetched)


def test_a_profile_names_the_workspace(tmp_path, home):
    with FakeDatabricks(files=FILES).running() as workspace:
        profile = f"[prod]\nhost = {workspace.url}\ntoken = {TOKEN}\n"
        (home / ".databrickscfg").write_text(profile)
        model = resolve_model("databricks://prod", RUN_ID, None)
        assert model.artifact_uri.startswith("dbfs://prod@databricks/databricks/")
        assert contents(pull_model(model, tmp_path)) == FILES


def test_a_run_that_the_workspace_does_not_know_is_not_found(log_in):
    with FakeDatabricks().running() as workspace:
        log_in(workspace)
        with pytest.raises(ModelNotFound):
            resolve_model("databricks", "f" * 32, None)


@pytest.mark.parametrize(
    ("location", "tracking_uri"),
    [
        (ROOTS["model"], "https://mlflow.example.com"),
        ("dbfs:/databricks/mlflow-tracking/7/../8/artifacts", "databricks"),
        (f"dbfs://other/databricks/mlflow-tracking/7/{RUN_ID}/artifacts", "databricks"),
        (f"dbfs://me@databricks/databricks/mlflow-tracking/7/{RUN_ID}/artifacts", "databricks"),
        ("dbfs:/FileStore/model", "databricks"),
        ("dbfs:/Volumes/main", "databricks"),
        ("file:///etc", "databricks"),
        ("mlflow-artifacts:/0/a", "databricks"),
    ],
)
def test_a_location_that_is_not_the_workspaces_own_is_refused(location, tracking_uri):
    with pytest.raises(SourceError):
        artifact_location(location, tracking_uri)


# What expires


def test_signed_addresses_that_expire_in_the_middle_are_asked_for_again(
    tmp_path, log_in, monkeypatch
):
    monkeypatch.setattr(databricks_artifacts, "PIECE_BYTES", 1 << 19)
    with FakeDatabricks(files=FILES, uses=3).running() as workspace:
        log_in(workspace)
        assert pull(tmp_path) == FILES
    assert workspace.count("credentials-for-download") == 2


def test_a_storage_that_refuses_every_address_is_named_and_the_address_is_not(tmp_path, log_in):
    with FakeDatabricks(uses=0).running() as workspace:
        log_in(workspace)
        with pytest.raises(RefusedError, match="has just signed") as refused:
            pull(tmp_path)
    assert "403" in secretless(refused.value)
    assert "private link" in refused.value.next_step


def test_a_token_that_expires_in_the_middle_is_a_refusal_and_what_arrived_is_kept(
    tmp_path, log_in, monkeypatch
):
    monkeypatch.setattr(databricks_artifacts, "SIGNED_AT_ONCE", 1)
    monkeypatch.setattr("adroit_publish.artifacts.cache.THREADS", 1)
    with FakeDatabricks(files=FILES).running() as workspace:
        log_in(workspace)
        model = resolve_model("databricks", RUN_ID, None)

        def expires(asked, handler):
            if workspace.count("credentials-for-download") > 5:
                workspace.token = "another"
            return False

        workspace.spoil = expires
        with pytest.raises(RefusedError, match="expired") as refused:
            pull_model(model, tmp_path)
        assert "oops" not in secretless(refused.value)
        workspace.spoil, workspace.token = (lambda asked, handler: False), TOKEN
        before = len(workspace.fetched)
        pulled = pull_model(model, tmp_path)
    assert contents(pulled) == FILES
    assert pulled.bytes_cached > 0
    assert before == 5
    # Whether what has arrived is still what the storage has is asked, not fetched.
    fetched = [
        asked for asked in workspace.fetched[before:] if "if-none-match" not in asked.headers
    ]
    # An empty part has nothing to show for itself: it may be asked for once more.
    assert len(fetched) in (len(FILES) - 5, len(FILES) - 4)


# What is answered


@pytest.mark.parametrize("path", ["runs/get", f"{MODEL_ID}", "directories", "for-download"])
@pytest.mark.parametrize(
    ("status", "data", "kind"),
    [
        (200, b"<html>Sign in to Databricks</html>", SourceError),
        (200, b"[]", SourceError),
        (401, b"<html>no</html>", RefusedError),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no?sig=canary-signature"}',
         RefusedError),
        (403, b'{"error_code": 403, "message": "Invalid access token."}', RefusedError),
        (302, b"", SourceError),
    ],
)  # fmt: skip
def test_an_answer_of_another_kind_is_a_plain_message(tmp_path, log_in, path, status, data, kind):
    def spoil(asked, handler):
        if not asked.path.endswith(path):
            return False
        send(handler, status, data, "text/html", Location="http://127.0.0.1:9/stolen")
        return True

    with FakeDatabricks(spoil=spoil).running() as workspace:
        log_in(workspace)
        with pytest.raises(kind) as error:
            pull(tmp_path)
    assert not isinstance(error.value, ModelNotFound)
    assert error.value.next_step
    assert len(str(error.value)) < 1200
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    ("status", "data", "headers", "match"),
    [
        (200, b"<html>please log in</html>", {}, "not the file"),
        (200, b"flavors: {}\n", {"Content_Encoding": "gzip"}, "not the file"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}, "not the file"),
        (404, b"", {}, "gone"),
        (412, b"", {}, "replaced"),
    ],
)
def test_a_storage_that_answers_otherwise_is_a_plain_message(
    tmp_path, log_in, status, data, headers, match
):
    def spoil(asked, handler):
        send(handler, status, data, "text/html", **headers)
        return True

    with FakeDatabricks(spoil_storage=spoil).running() as workspace:
        log_in(workspace)
        with pytest.raises(SourceError, match=match) as error:
            pull(tmp_path)
    secretless(error.value)
    assert len(workspace.fetched) == 1


@pytest.mark.parametrize("where", ["spoil", "spoil_storage"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_recovers_is_asked_again(tmp_path, log_in, where, status):
    failed = []

    def spoil(asked, handler):
        wanted = where == "spoil_storage" or asked.path.endswith(("directories", "for-download"))
        if not wanted or len(failed) >= 3:
            return False
        failed.append(asked.path)
        send(handler, status, b"no", Retry_After="0")
        return True

    with FakeDatabricks(**{where: spoil}).running() as workspace:
        log_in(workspace)
        model = resolve_model("databricks", RUN_ID, None)
        assert contents(pull_model(model, tmp_path, give_up_after_s=20)) == workspace.files
    assert len(failed) == 3


def test_a_storage_that_is_dead_is_given_up_without_its_address_in_any_traceback(tmp_path, log_in):
    with FakeDatabricks(storage=f"http://127.0.0.1:{free_port()}").running() as workspace:
        log_in(workspace)
        with pytest.raises(SourceError, match="failed") as error:
            pull(tmp_path)
    assert "ConnectionError" in secretless(error.value)


def test_a_storage_over_plain_http_is_refused_by_a_workspace_over_https(tmp_path, log_in):
    with FakeDatabricks().running() as workspace:
        log_in(workspace)
        uri = resolve_model("databricks", RUN_ID, None).artifact_uri
        root = databricks_artifacts.open_databricks(uri, ())
        root._workspace.host = "https://example.com"
        with pytest.raises(SourceError, match="not reached over https"):
            root._signed_of({"signed_uri": workspace.storage})


@pytest.mark.parametrize("name", ["../MLmodel", "a/b", "", "..", "a\nb", "/etc/passwd"])
@pytest.mark.parametrize("kind", ["model", "volume"])
def test_a_hostile_file_name_is_refused(tmp_path, log_in, kind, name):
    def spoil(asked, handler):
        if "/artifacts/directories" not in asked.path and "/fs/directories" not in asked.path:
            return False
        rows = [{"path": name, "is_dir": False, "file_size": 1}]
        send(handler, 200, f'{{"files": {_json(rows)}, "contents": {_json(rows)}}}'.encode())
        return True

    with FakeDatabricks(kind=kind, spoil=spoil).running() as workspace:
        log_in(workspace)
        with pytest.raises(SourceError, match=r"outside its folder|cannot be used"):
            pull(tmp_path)


def _json(value):
    import json

    return json.dumps(value)


def test_pages_that_never_end_end(tmp_path, log_in):
    def spoil(asked, handler):
        if not asked.path.endswith("/directories"):
            return False
        send(handler, 200, b'{"files": [{"path": "d", "is_dir": true}], "next_page_token": "x"}')
        return True

    with FakeDatabricks(spoil=spoil).running() as workspace:
        log_in(workspace)
        with pytest.raises(SourceError):
            pull(tmp_path)


# Who we are


@pytest.mark.parametrize(
    ("text", "tracking_uri", "kind", "got"),
    [
        (None, "databricks", RefusedError, "does not exist"),
        (None, "databricks://prod", RefusedError, "does not exist"),
        ("[dev]\nhost = https://x\ntoken = canary\n", "databricks://prod", RefusedError, "dev"),
        ("[DEFAULT]\nhost = https://x\n", "databricks", RefusedError, "DEFAULT"),
        ("", "databricks", RefusedError, "no profile"),
        ("host = canary\n", "databricks", SourceError, "not in INI form"),
        ("[DEFAULT]\ncanary\n", "databricks", SourceError, "not in INI form"),
        (b"\xff\xfe\x00canary", "databricks", SourceError, "not in INI form"),
        (OSError, "databricks", RefusedError, "Is a directory"),
        ("[DEFAULT]\nhost = http://example.invalid\ntoken = canary\n", "databricks", SourceError,
         "http://example.invalid"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used_is_a_plain_message(
    home, text, tracking_uri, kind, got
):
    file = home / ".databrickscfg"
    if text is OSError:
        file.mkdir()
    elif text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.monotonic()
    with pytest.raises(kind) as error:
        resolve_model(tracking_uri, RUN_ID, None)
    assert got in str(error.value.got)
    assert "canary" not in "".join(traceback.format_exception(error.value))
    assert time.monotonic() - started < 15


def test_the_environment_is_enough_where_the_file_is_garbage(tmp_path, home, log_in):
    (home / ".databrickscfg").write_text("canary\n")
    with FakeDatabricks(files=FILES).running() as workspace:
        log_in(workspace)
        assert pull(tmp_path) == FILES


def test_a_workspace_that_is_dead_is_given_up(monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    started = time.monotonic()
    with pytest.raises(SourceError) as error:
        resolve_model("databricks", RUN_ID, None)
    assert TOKEN not in str(error.value)
    assert time.monotonic() - started < 40
