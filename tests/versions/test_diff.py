"""``diff`` on really published versions, and the page it writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from adroit_publish import publish
from adroit_publish.bundle.document import canonical_json, parse_bundle_record
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.bundle.record import parse_record
from adroit_publish.checkout import open_checkout
from adroit_publish.errors import ConfigError, SourceError, VerificationError
from adroit_publish.places import open_store
from adroit_publish.stores.records import records
from adroit_publish.versions import comparison
from adroit_publish.versions import diff as diffing
from adroit_publish.versions.comparison import Compared, compare, text_diff
from tests.support.checkouts import FLOW, commit, git, make_checkout

SCRIPT = "<script>alert('x')</script>"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
HANDLER = """\
from adroit.serving.mlflow_handler import MlflowHandler


class Handler(MlflowHandler):
    def predict(self, inputs, params=None):
        return super().predict(inputs, params) + 0.5
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """A checkout whose flavor ``a`` went from one version to another; both releases."""
    flavors = {"a": trained.good[0], "waits": trained.good[0], "none": ""}
    root = make_checkout(tmp_path_factory.mktemp("d") / "repo", trained.tracking_uri, flavors)
    project = root / "projects" / "doubler"
    (project / "gone.py").write_text("OLD = 1\n")
    (project / "table.bin").write_bytes(bytes(range(256)))
    (project / "long.txt").write_text("x" * (diffing.TEXT_LIMIT_BYTES + 1))
    commit(root, "source")
    git(root, "tag", "unpublished")
    first = publish("a", root=root)
    commit(root, "published")
    git(root, "tag", "before")
    git(root, "tag", "empty", git(root, "commit-tree", EMPTY_TREE, "-m", "empty"))
    (project / "gone.py").unlink()
    (project / "handler.py").write_text(HANDLER)
    (project / "features.py").write_text(f'SCALE = 3\nPAGE = "{SCRIPT}\x1b[31m"\n')
    (project / "table.bin").write_bytes(bytes(reversed(range(256))))
    (project / "long.txt").write_text("y" * (diffing.TEXT_LIMIT_BYTES + 1))
    config = (project / "config.yaml").read_text()
    config = config.replace(
        "adroit.serving.mlflow_handler:MlflowHandler", "projects.doubler.handler:Handler"
    )
    (project / "config.yaml").write_text(config)
    commit(root, "changed")
    second = publish("a", root=root, run_id=trained.weighty)
    return root, first, second


def run(root, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "diff", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def in_process(root, a, b):
    checkout = open_checkout(root, {})
    return diffing.diff(checkout, open_store(checkout.target(None)), a, b)


@pytest.fixture(scope="module")
def found(published):
    root, first, second = published
    return json.loads(run(root, first.version, second.version, "--json").stdout)


def test_every_changed_file_is_named_with_its_sizes(found):
    changes = {
        f"{each['kind']}/{each['path']}": each["change"]
        for each in found["files"]
        if each["change"] != "same"
    }
    assert changes.pop("model/artifacts/weights.bin") == "added"
    source = {path: change for path, change in changes.items() if path.startswith("source/")}
    assert source == {
        "source/projects/doubler/features.py": "changed",
        "source/projects/doubler/gone.py": "removed",
        "source/projects/doubler/handler.py": "added",
        "source/projects/doubler/long.txt": "changed",
        "source/projects/doubler/table.bin": "changed",
    }
    assert not [path for path in changes if path.startswith("runtime/")]
    weights = next(each for each in found["files"] if each["path"] == "artifacts/weights.bin")
    assert (weights["before_bytes"], weights["after_bytes"]) == (None, 20 << 20)
    example = next(each for each in found["files"] if each["path"] == "input_example.json")
    assert example["change"] == "same"
    assert example["before"] == example["after"]


def test_source_is_a_unified_diff_and_what_is_no_text_is_said_to_be_none(found):
    texts = {each["path"].rpartition("/")[2]: each for each in found["texts"]}
    assert {"-SCALE = 2", "+SCALE = 3"} <= set(texts["features.py"]["lines"])
    assert texts["gone.py"]["lines"][-1] == "-OLD = 1"
    assert texts["handler.py"]["lines"][0] == "--- /dev/null"
    assert (texts["table.bin"]["lines"], texts["table.bin"]["note"]) == ([], "not a text")
    assert (texts["long.txt"]["lines"], texts["long.txt"]["note"]) == ([], "too large to be shown")


def test_config_outputs_metrics_and_sizes_are_compared(found, published):
    _, first, second = published
    assert found["serve"] == [
        {
            "name": "handler.class_path",
            "before": "adroit.serving.mlflow_handler:MlflowHandler",
            "after": "projects.doubler.handler:Handler",
        }
    ]
    replay = found["outputs"]["replay"]
    assert (replay["rows"], replay["differing"]) == (2, 4)
    (largest, *_) = replay["largest"]
    assert (largest["row"], largest["column"]) == (0, "x")
    assert (largest["recorded"], largest["now"]) == (2.0, 2.5)
    assert (found["metrics"], found["env"], found["packages"]) == ([], [], [])
    sizes = {each["name"]: each["after"] - each["before"] for each in found["layer_sizes"]}
    assert sizes["model"] > 20 << 20
    assert sizes["runtime"] == 0
    assert (found["before"]["run"], found["after"]["run"]) == (first.run_id, second.run_id)
    assert (found["before"]["commit"], found["after"]["by"]) == (first.commit, "tester")


def test_a_flavor_and_a_flavor_at_a_commit_mean_their_versions(published):
    root, first, second = published
    for ref in ("before", git(root, "rev-parse", "before"), "HEAD"):
        facts = json.loads(run(root, f"a@{ref}", "a", "--json").stdout)
        assert facts["before"]["version"] == first.version
        assert facts["after"]["version"] == second.version


def test_a_version_against_itself_says_that_every_byte_is_the_same(published):
    root, first, _ = published
    text = run(root, first.version, "a@before").stdout
    assert "every byte is the same" in text
    assert json.loads(run(root, first.version, first.version, "--json").stdout)["same"] is True


def test_the_text_shows_what_differs_and_nothing_that_a_terminal_obeys(published):
    root, first, second = published
    text = run(root, first.version, second.version).stdout
    for line in ("+SCALE = 3", "-SCALE = 2", "4 of 4 values differ in 2 rows"):
        assert line in text
    assert re.search(r"\+ +model/artifacts/weights\.bin +added +20\.0 MiB +sha256:", text)
    assert "No difference: conda env" in text
    assert "\x1b" not in text


def test_on_a_terminal_it_is_coloured(published, monkeypatch, capsys):
    from adroit_publish.cli.diff.command import _print

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _print(in_process(published[0], "a@before", "a"))
    text = capsys.readouterr().out
    assert "\x1b[32m+SCALE = 3\x1b[0m" in text
    assert "\x1b[31m-SCALE = 2\x1b[0m" in text
    assert "\x1b[31m-\x1b" not in text  # what the source holds


class Page(HTMLParser):
    """Notes every tag, attribute and text; fails where tags do not pair."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name) for name, _ in attributes]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_is_whole_by_itself_and_escapes_everything(published, tmp_path):
    root, first, second = published
    file = tmp_path / "diff.html"
    assert str(file) in run(root, first.version, second.version, "--html", file).stdout
    text = file.read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "base", "form", "a"} & set(page.tags)
    allowed = {"charset", "class", "content", "http-equiv", "lang", "name", "open", "scope"}
    assert {name for _, name in page.attributes} <= allowed
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    for shown in (SCRIPT, first.version, second.version, "weights.bin", "+SCALE = 3"):
        assert shown in page.text
    assert "\x1b" not in text


def test_a_page_that_cannot_be_written_is_a_bad_flag(published, tmp_path):
    done = run(published[0], "a", "a", "--html", tmp_path / "no" / "x.html", check=False)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("v00000000-000000000000", ConfigError, "no version"),
        ("aa", ConfigError, "no flavor 'aa'"),
        ("aa@before", ConfigError, "no flavor 'aa'"),
        ("waits", ConfigError, "not published yet"),
        ("waits", ConfigError, "next: +python publish_mlflow_model_flow.py run --flavor=waits$"),
        ("none", ConfigError, "next: .* run --flavor=none --mlflow-run-id=RUN_ID$"),
        ("a@unpublished", ConfigError, "not published then(.|\n)*at unpublished(.|\n)*git log"),
        ("a@no-such-ref", SourceError, "no such commit"),
        ("a@--all", SourceError, "no such commit"),
        ("a@", SourceError, "no such commit"),
        ("a@empty", SourceError, "not in that commit"),
    ],
)
def test_what_is_not_there_is_said_clearly(published, name, kind, match):
    root = published[0]
    with pytest.raises(kind, match=match):
        in_process(root, name, "a")


def test_a_version_of_another_schema_is_refused(published, monkeypatch):
    monkeypatch.setattr("adroit_publish.bundle.document.SCHEMA", 2)
    with pytest.raises(VerificationError, match="another version of this program"):
        in_process(published[0], "a@before", "a")


def test_a_damaged_source_layer_is_refused(published, tmp_path):
    root, _, second = published
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    layer = next(layer for layer in second.layers if layer.kind == "source")
    blob = copy / ".adroit/bundles/blobs/sha256" / layer.digest[7:]
    data = blob.read_bytes().replace(b"SCALE = 3", b"SCALE = 4")
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises(VerificationError):
        in_process(copy, "a@before", "a")


def test_a_record_that_is_no_publish_changes_no_fact(published, tmp_path):
    root, first, _ = published
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    store = open_store(open_checkout(copy, {}).target(None))
    version = store.get(first.version)
    data = b'{"created_utc":"2099-01-01T00:00:00+00:00","promoted":{},"who":"x"}'
    store.attach("doubler", first.version, version.manifest, RECORD_MEDIA_TYPE, data)
    assert len(records(store, version)) == 2
    assert in_process(copy, "a@before", "a").before["by"] == "tester"


# The rules alone.


def side(files=(), *, record=None, **document):
    whole = {
        "schema": 1,
        "model_name": "m",
        "run_id": "0" * 32,
        "model_id": None,
        "model_uuid": None,
        "files": {"model": list(files), "runtime": [], "source": []},
        "serve": {},
        "signature": None,
        "requirements": [],
        "python_version": "3.11.7",
        "conda_env": {"name": "plain", "digest": None},
    } | document
    records = (parse_record(canonical_json(record), "m"),) if record else ()
    bundle = parse_bundle_record(canonical_json(whole))
    return Compared("v", "m", "v", "sha256:" + "0" * 64, bundle, {}, records)


def verified(**facts):
    defaults = {"how": "image", "predicted": True, "outputs_truncated": False, "packages": {}}
    return {"verification": defaults | facts}


def test_a_file_that_is_packed_differently_is_not_said_to_have_changed():
    alone = {"path": "w", "size": 5, "layer": "sha256:" + "1" * 64}
    shared = {"path": "w", "size": 5, "sha256": "2" * 64}
    (change,) = comparison.file_changes(side([alone]), side([shared]), "model")
    assert change.change == "packed differently"
    (change,) = comparison.file_changes(side([alone]), side([shared | {"size": 6}]), "model")
    assert change.change == "changed"


def test_packages_requirements_signature_and_env_are_compared():
    a = side(
        record=verified(packages={"numpy": "1", "gone": "1"}, outputs_sha256="x", outputs=[1.0]),
        requirements=["numpy==1", "pandas"],
        signature={"inputs": "[1]", "outputs": "[1]"},
    )
    b = side(
        record=verified(packages={"numpy": "2", "new": "1"}, outputs_sha256="x", outputs=[1.0]),
        requirements=["pandas", "numpy==2"],
        signature={"inputs": "[1]", "outputs": "[2]"},
        python_version="3.12.1",
        conda_env={"name": "plain", "digest": "sha256:" + "3" * 64},
    )
    found = compare(a, b, ())
    assert [(each.name, each.before, each.after) for each in found.packages] == [
        ("gone", "1", None),
        ("new", None, "1"),
        ("numpy", "1", "2"),
    ]
    assert found.packages_note == "as the images hold them"
    assert [each.name for each in found.requirements] == ["numpy==1", "numpy==2"]
    assert [each.name for each in found.signature] == ["outputs"]
    assert [each.name for each in found.env] == ["digest", "Python of the model"]
    assert found.outputs.note == "the same, to the last digit"


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (None, verified(outputs_sha256="x"), "no recorded outputs"),
        (
            verified(outputs_sha256="x", outputs=None),
            verified(outputs_sha256="y", outputs=[1]),
            "too large",
        ),
        (
            verified(outputs_sha256="x", outputs=[1], outputs_truncated=True),
            verified(outputs_sha256="y", outputs=[2, 3]),
            "1 of 1 values differ in 1 rows; only the recorded rows",
        ),
    ],
)
def test_outputs_that_cannot_be_compared_say_why(before, after, note):
    assert note in compare(side(record=before), side(record=after), ()).outputs.note


def test_outputs_of_other_input_examples_are_not_compared():
    entries = [{"path": "input_example.json", "size": 1, "sha256": digit * 64} for digit in "12"]
    records = [verified(outputs_sha256=digit, outputs=[digit]) for digit in "12"]
    a, b = (side([entry], record=record) for entry, record in zip(entries, records, strict=True))
    assert compare(a, b, ()).outputs.note == "not compared: the input examples differ"


def test_a_long_diff_is_cut_and_says_so():
    long = "".join(f"{n}\n" for n in range(comparison.SHOWN_LINES + 100)).encode()
    text = text_diff("x", None, long)
    assert len(text.lines) == comparison.SHOWN_LINES
    assert text.note == "103 more lines"
    assert "line ends" in text_diff("x", b"a\r\n", b"a\n").note
