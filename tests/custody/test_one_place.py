"""A version in one place: every damage is told with what mends it, and that does mend it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.commands import cli
from adroit_publish.custody.check import verify
from adroit_publish.errors import PublishError
from adroit_publish.places import open_store
from adroit_publish.stores.bundle_store import BundleStore
from tests.support.checkouts import commit, make_checkout


@dataclass
class Stored:
    """A version in a directory, and the files that it is kept in."""

    root: Path
    version: str
    run_id: str
    other: str

    @property
    def store(self):
        return open_store(open_checkout(self.root, {}).target("local"))

    def entry(self):
        (entry,) = (self.bundles / "doubler" / self.version / "referrers").iterdir()
        return entry

    @property
    def bundles(self):
        return self.root / ".adroit/bundles"

    def blob(self, digest):
        return self.bundles / "blobs/sha256" / str(digest).removeprefix("sha256:")

    def index(self):
        return self.bundles / "doubler" / self.version / "index.json"

    def manifest(self):
        return self.blob(json.loads(self.index().read_text())["manifests"][0]["digest"])

    def layer(self, number=0):
        return self.blob(json.loads(self.manifest().read_text())["layers"][number]["digest"])

    def record(self):
        return self.blob(
            json.loads(self.blob(self.entry().name).read_text())["layers"][0]["digest"]
        )

    def run(self, *arguments):
        result = CliRunner().invoke(cli, [*arguments, "--target", "local"])
        error = result.exception
        if error and not isinstance(error, PublishError | SystemExit):
            raise error
        code = error.exit_code if isinstance(error, PublishError) else result.exit_code
        return code, result.output + (str(error) if isinstance(error, PublishError) else "")


@pytest.fixture
def stored(tmp_path, trained, monkeypatch):
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    first, other = (publish(name, root=root, verify="none").version for name in "ab")
    commit(root, "published")
    monkeypatch.chdir(root)
    return Stored(root, first, trained.good[0], other)


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def rewrite_record(stored, schema=99):
    """Another record under right digests, that this program cannot read."""
    store = stored.store
    published = store.get(stored.version)
    stored.entry().unlink()
    media_type = "application/vnd.adroit.record.v1+json"
    document = json.dumps({"schema": schema}).encode()
    store.attach("doubler", stored.version, published.manifest, media_type, document)


DAMAGES = {
    "record, flipped": lambda stored: flip(stored.record()),
    "record, gone": lambda stored: stored.record().unlink(),
    "record, a directory": lambda stored: (stored.record().unlink(), stored.record().mkdir()),
    "record, of tomorrow": rewrite_record,
    "its manifest, flipped": lambda stored: flip(stored.blob(stored.entry().name)),
    "its manifest, gone": lambda stored: stored.blob(stored.entry().name).unlink(),
    "its entry, flipped": lambda stored: flip(
        stored.entry(), stored.entry().read_bytes().index(b"sha256:") + 9
    ),
    "its entry, gone": lambda stored: stored.entry().unlink(),
    "bundle.json, flipped": lambda stored: flip(stored.layer(-1), 700),
    "bundle.json, gone": lambda stored: stored.layer(-1).unlink(),
    "manifest, flipped": lambda stored: flip(stored.manifest()),
    "manifest, gone": lambda stored: stored.manifest().unlink(),
    "index, garbage": lambda stored: stored.index().write_bytes(b"{"),
    "index, empty": lambda stored: stored.index().write_bytes(b""),
}
UNREADABLE = [what for what in DAMAGES if what != "its entry, gone"]
OF_A_LAYER = {
    "layer, flipped": lambda stored: flip(stored.layer()),
    "layer, its first header flipped": lambda stored: flip(stored.layer(), 3),
    "layer, its size flipped": lambda stored: flip(stored.layer(), 130),
    "layer, cut": lambda stored: stored.layer().write_bytes(stored.layer().read_bytes()[:-1]),
    "layer, longer": lambda stored: stored.layer().write_bytes(stored.layer().read_bytes() + b"."),
    "layer, gone": lambda stored: stored.layer().unlink(),
}


@pytest.fixture
def writable(stored):
    for path in stored.bundles.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", sorted({*DAMAGES, *OF_A_LAYER} - {"record, of tomorrow"}))
def test_what_the_message_says_mends_it(stored, what):
    (DAMAGES | OF_A_LAYER)[what](stored)
    code, output = stored.run("verify", stored.version)
    assert code in (5, 6), output
    assert "every digest" not in output
    step = output.partition("  next:   ")[2]
    if step.startswith("delete "):
        Path(step.split()[1].removeprefix("file:")).unlink()
    elif "publish" not in step:
        pytest.fail(output)
    if "record" not in what:
        assert "--repair" not in step
    # What the next step's command does.
    assert (
        "index" in what
        or f"--flavor=a --mlflow-run-id={stored.run_id}" in step
        or ("manifest" in what and "RUN_ID" in step)
    )
    publish("a", root=stored.root, target="local", run_id=stored.run_id, verify="none")
    for command in ("verify", "show"):
        code, output = stored.run(command, stored.version)
        assert code == 0, output
    code, output = stored.run("versions", "doubler", "--json")
    assert code == 0
    assert all(row["created_utc"] and "damage" not in row for row in json.loads(output))


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", UNREADABLE)
def test_versions_lists_the_others_and_names_the_damaged_one(stored, what):
    DAMAGES[what](stored)
    code, output = stored.run("versions", "doubler")
    assert code == 6, output
    listed, _, message = output.partition("1 of the versions of doubler")
    assert stored.other in listed
    assert stored.version in listed
    assert stored.version in message.partition("got:")[2].partition("next:")[0]
    assert f"next:   python -m adroit_publish verify {stored.version} --target local" in message
    code, output = stored.run("versions", "doubler", "--json")
    damaged = {row["version"]: row.get("damage") for row in json.loads(output)}
    assert code == 6
    assert damaged[stored.version]
    assert damaged[stored.other] is None


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", DAMAGES)
def test_another_run_of_the_model_can_be_published(stored, what):
    DAMAGES[what](stored)
    (stored.root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(stored.root, "more")
    again = publish("b", root=stored.root, target="local", run_id=json_run(stored), verify="none")
    assert again.version != stored.other


def json_run(stored):
    return stored.store.bundle_record(
        published := stored.store.get(stored.other), stored.store.manifest(published)
    ).run_id


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", UNREADABLE)
def test_who_reads_a_damaged_version_is_told_what_to_type(stored, what):
    DAMAGES[what](stored)
    for command in (("show", stored.version), ("history", "doubler"), ("diff", "a", "b")):
        code, output = stored.run(*command)
        assert code == 0 or "  next:  " in output, output


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", OF_A_LAYER)
def test_a_damaged_layer_is_told_by_its_digest(stored, what):
    layer = stored.layer()
    OF_A_LAYER[what](stored)
    store = stored.store
    (problem,) = verify(store, store.get(stored.version)).problems
    assert layer.name in problem
    assert "blob" in problem or "not there" in problem, problem


@pytest.mark.usefixtures("writable")
def test_status_suggests_what_can_mend_a_version_in_one_place(stored):
    stored.layer().unlink()
    code, output = stored.run("status", "--check")
    assert code == 6
    assert "--repair" not in output
    assert f"run --flavor=a --mlflow-run-id={stored.run_id} --target=local" in output


def test_a_publish_that_finds_its_version_damaged_suggests_it_as_well(stored):
    stored.layer(1).unlink()
    with pytest.raises(PublishError) as refused:
        publish("a", root=stored.root, target="local", verify="none")
    assert "--repair" not in refused.value.next_step
    assert f"--mlflow-run-id={stored.run_id} --target=local" in refused.value.next_step


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("also", [lambda stored: None, lambda stored: flip(stored.layer())])
def test_a_record_of_a_newer_program_is_read_by_an_upgrade_and_never_deleted(stored, also):
    rewrite_record(stored, schema=2)
    also(stored)
    for options in ((), ("--repair",)):
        code, output = stored.run("verify", stored.version, *options)
        assert code == 6
        assert "written by a newer version" in output
        assert "  next:   upgrade: update this checkout" in output
        assert "delete" not in output
    code, output = stored.run("show", stored.version)
    assert (code, "upgrade" in output, "delete" in output) == (6, True, False)


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("flavor", ["a", "gone"])
def test_a_version_is_made_again_at_the_commit_that_it_was_published_from(stored, flavor):
    (stored.root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    if flavor == "gone":  # flavors.yaml names another version by now
        path = stored.root / "flavors.yaml"
        path.write_text(path.read_text().replace(stored.version, stored.other))
    commit(stored.root, "changed since")
    flip(stored.layer())
    _, output = stored.run("verify", stored.version)
    step = output.partition("  next:   ")[2].splitlines()[0]
    back, _, again = step.partition(" && ")
    subprocess.run(shlex.split(back), cwd=stored.root, check=True)
    options = f"--flavor=a --mlflow-run-id={stored.run_id} --target=local"
    assert again == f"python publish_mlflow_model_flow.py run {options}"
    made = publish("a", root=stored.root, target="local", run_id=stored.run_id, verify="none")
    assert made.version == stored.version
    assert stored.run("verify", stored.version)[0] == 0


@pytest.mark.usefixtures("writable")
def test_what_no_document_says_is_said_in_words_and_not_in_a_command(stored):
    path = stored.root / "flavors.yaml"
    path.write_text(path.read_text().replace(stored.version, stored.other))
    flip(stored.manifest())
    flip(stored.record())
    _, output = stored.run("verify", stored.version)
    assert f"the run whose id begins with {stored.run_id[:8]}" in output
    assert "RUN_ID" not in output
    assert "FLAVOR" not in output
    assert "python" not in output.partition("  next:   ")[2]


IRREGULAR = {"pipe": os.mkfifo, "folder": Path.mkdir}


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("what", ["entry", "index", "layer"])
@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_regular_file_is_named_and_never_waited_for(stored, what, kind):
    path = getattr(stored, what)()
    path.unlink()
    IRREGULAR[kind](path)
    for command in (("verify", stored.version), ("status", "--check"), ("versions", "doubler")):
        code, output = stored.run(*command)
        if command[0] == "versions" and what == "layer":
            continue  # it reads no layer
        assert code in (5, 6) or (command[0], what) == ("status", "entry"), output
        assert code == 0 or (path.name in output and "  next:  " in output), output
    code, output = stored.run("verify", stored.version)
    assert "not a regular file" in output


@pytest.mark.usefixtures("writable")
def test_an_index_that_is_a_dangling_link_is_named(stored):
    stored.index().unlink()
    stored.index().symlink_to("nowhere")
    code, output = stored.run("versions", "doubler")
    assert code == 6
    assert f"{stored.version}/index.json" in output
    code, output = stored.run("verify", stored.version)
    assert (code, f"delete file:{stored.index()}" in output) == (6, True)


STRAYS = {
    ".DS_Store": lambda path: path.write_bytes(b"Bud1"),
    "a" * 63: lambda path: path.write_bytes(b"{}"),
    "A" * 64: lambda path: path.write_bytes(b"{}"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
}


@pytest.mark.usefixtures("writable")
@pytest.mark.parametrize("name", STRAYS)
def test_what_is_not_ours_among_the_referrers_is_named_and_says_nothing_of_the_version(
    stored, name
):
    path = stored.entry().parent / name
    STRAYS[name](path)
    code, output = stored.run("verify", stored.version)
    assert (code, f"not ours, and left alone: file:{path}\n" in output) == (0, True), output
    code, output = stored.run("verify", stored.version, "--json")
    assert (code, json.loads(output)["strays"]) == (0, [f"file:{path}"])
    for command in (("show", stored.version), ("versions", "doubler"), ("plan",)):
        assert stored.run(*command)[0] == 0
    stored.layer().unlink()
    code, output = stored.run("verify", stored.version)
    assert code == 6
    assert "delete" not in output


@pytest.mark.usefixtures("writable")
def test_what_to_delete_is_named_by_its_whole_name(stored):
    flip(stored.record())
    _, output = stored.run("verify", stored.version)
    assert f"delete file:{stored.entry()} (" in output


class Counted:
    """Objects that note what is read to its end."""

    def __init__(self, objects):
        self._objects = objects
        self.read_bytes = {}

    def __getattr__(self, name):
        return getattr(self._objects, name)

    def read(self, key, *arguments):
        size = 0
        for chunk in self._objects.read(key, *arguments):
            size += len(chunk)
            yield chunk
        self.read_bytes[key] = size


def test_what_verify_counts_is_what_it_read(stored):
    published = stored.store.get(stored.version)
    counted = Counted(stored.store.objects)
    report = verify(BundleStore(counted), published)
    assert report.problems == []
    assert report.objects == len(counted.read_bytes)
    assert report.size_bytes == sum(counted.read_bytes.values())
    _, output = stored.run("verify", stored.version)
    assert f"{report.objects} objects in " in output
