"""What of a rollover lives in git, and what every clone knows: holds, and the deletion."""

from __future__ import annotations

import json
import shutil

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.rollovers.test_way_back import answering, published, rolling, root, sides  # noqa: F401
from tests.support.checkouts import commit, git
from tests.support.rolling import done, run


@pytest.fixture
def clones(root, tmp_path):  # noqa: F811
    """Bob's clone and alice's, of one upstream, with one store and one sitevar."""
    commit(root, "published")
    git(tmp_path, "clone", "-q", "--bare", "repo", "bare.git")
    git(root, "remote", "add", "origin", str(tmp_path / "bare.git"))
    git(root, "fetch", "-q", "origin")
    git(root, "branch", "-q", "-u", "origin/main")
    git(tmp_path, "clone", "-q", str(tmp_path / "bare.git"), "alice")
    (tmp_path / "alice/.adroit").symlink_to(root / ".adroit")
    config = (root / "adroit.toml").read_text()
    assert "file:.adroit" in config
    return root, tmp_path / "alice"


def flavors(repository, revision):
    return parse_flavors(git(repository, "show", f"{revision}:flavors.yaml").encode())


def test_who_has_not_pulled_the_hold_is_told_of_it_by_the_ledger(clones):
    bob, alice = clones
    old, _ = sides(bob)
    with answering(old) as url:
        rolling(bob, "pointed", old_urls=[url], share=10.0)
        said = done(bob, "rollover", "rollback", "doubler", "--why", "p99 is up")
    assert "git commit flavors.yaml -m 'Hold new'" in said
    start = ("rollover", "start", "--from", "old", "--to", "new", "--url", "http://127.0.0.1:1")
    code, said = run(alice, *start, "--prometheus", "http://127.0.0.1:1")
    assert code == 4, said
    assert "The ledger says that new is held" in said
    assert "p99 is up" in said


def test_a_rollback_takes_its_hold_to_the_others_where_that_is_asked(clones):
    bob, _ = clones
    old, _ = sides(bob)
    with answering(old) as url:
        rolling(bob, "pointed", old_urls=[url], share=10.0)
        done(bob, "rollover", "rollback", "doubler", "--why", "p99 is up", "--push")
    assert flavors(bob, "origin/main")["new"].hold == "rolled back: p99 is up"


def test_retired_is_what_the_upstream_says_and_any_clone_can_finish(clones):
    bob, alice = clones
    rolling(bob, "retiring")
    text = (bob / "flavors.yaml").read_text()
    (bob / "flavors.yaml").write_text(text[: text.index("old:")] + text[text.index("new:") :])
    code, said = run(bob, "rollover", "finish", "doubler")
    assert code == 10, said
    assert "old is in flavors.yaml of origin/main" in said
    assert not ledger_has(bob, "deleted")
    said = done(bob, "rollover", "finish", "doubler", "--push")
    assert "pushed to origin/main" in said
    assert list(flavors(bob, "origin/main")) == ["new"]
    assert ledger_has(bob, "deleted")
    assert run(alice, "rollover", "finish", "doubler")[0] == 0  # it has ended, as was wanted


def test_a_store_on_this_disk_whose_versions_no_branch_has_needs_no_push_to_end(clones, trained):
    bob, _ = clones
    (old, _), text = sides(bob), (bob / "flavors.yaml").read_text()
    (bob / "flavors.yaml").write_text(text.replace(old.version, trained.good[0]))
    commit(bob, "as a branch has it whose flavors were published from here alone")
    git(bob, "push", "-q", "origin", "main")
    git(bob, "checkout", "-q", "HEAD~1", "flavors.yaml")
    rolling(bob, "retiring")
    assert run(bob, "rollover", "finish", "doubler")[0] == 10  # Prometheus is away
    text = (bob / "flavors.yaml").read_text()
    (bob / "flavors.yaml").write_text(text[: text.index("old:")] + text[text.index("new:") :])
    assert "retired" in done(bob, "rollover", "finish", "doubler")
    assert "old" in flavors(bob, "origin/main")


def test_a_clone_that_has_not_pulled_yet_finishes_what_another_pushed(clones):
    bob, alice = clones
    rolling(bob, "retiring")
    text = (bob / "flavors.yaml").read_text()
    (bob / "flavors.yaml").write_text(text[: text.index("old:")] + text[text.index("new:") :])
    commit(bob, "by hand")
    git(bob, "push", "-q", "origin", "main")
    assert "old" in parse_flavors((alice / "flavors.yaml").read_bytes())
    said = done(alice, "rollover", "finish", "doubler")
    assert "retired" in said


def test_the_same_start_with_another_option_names_the_option(root):  # noqa: F811
    start = ("rollover", "start", "--from", "old", "--to", "new", "--url", "http://127.0.0.1:1")
    done(root, *start, "--prometheus", "http://127.0.0.1:1")
    done(root, *start, "--prometheus", "http://127.0.0.1:1")
    code, said = run(root, *start, "--prometheus", "http://127.0.0.1:1", "--quiet", "7")
    assert code == 4
    assert "--quiet 3600s" in said
    assert "--quiet 7s" in said
    assert "rollover amend doubler" in said
    shutil.rmtree(root / ".adroit/bundles/rollovers")


def ledger_has(root, kind):  # noqa: F811
    told = json.loads(done(root, "history", "doubler", "--json"))
    return any(entry["kind"] == kind for entry in told)
