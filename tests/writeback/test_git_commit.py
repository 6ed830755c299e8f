from __future__ import annotations

import http.server
import os
import pickle
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from adroit_publish.config.targets import parse_targets
from adroit_publish.errors import DirtyTree, RefusedError, SourceError, StoreError
from adroit_publish.writeback import push as git_push
from adroit_publish.writeback.commit import commit_edits
from adroit_publish.writeback.commit_checks import check_commit, refuse_local_push
from adroit_publish.writeback.commit_message import CommitMessage, VersionChange
from tests.support.checkouts import commit, git
from tests.support.git_clones import (
    clone,
    hook,
    is_own_commit,
    make_bare,
    message,
    publish,
    run_id,
    version,
    version_edits,
    versions_at,
    write_back,
)
from tests.support.requirements import require

NEW = {"a": version(10)}


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("EMAIL", raising=False)


@pytest.fixture
def bare(tmp_path):
    return make_bare(tmp_path, ["a", "b", "c"])


@pytest.fixture
def mine(bare):
    return clone(bare, "mine")


@pytest.fixture
def theirs(bare):
    return clone(bare, "theirs")


def status(root: Path) -> list[str]:
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def tip(repository: Path, branch: str = "main") -> str:
    return git(repository, "rev-parse", branch)


def push_change(root: Path, name: str, text: str, branch: str = "main") -> str:
    (root / name).write_text(text)
    made = commit(root, f"change {name}")
    git(root, "push", "-q", "origin", f"HEAD:{branch}")
    return made


# The message


def test_a_message_names_flavor_versions_run_and_target_and_ends_with_the_trailer():
    change = VersionChange("a", run_id(1), version(1), run_id(1))
    assert str(CommitMessage((change,), "eng")) == (
        f"Publish a {version(1)}\n\n"
        f"a: {run_id(1)} -> {version(1)} (run {run_id(1)})\n"
        "Target: eng\n\n"
        "Adroit-Publish: 1 flavor\n"
    )


def test_a_long_subject_is_cut_to_a_count_and_the_body_names_them_all():
    changes = tuple(VersionChange(f"flavor_{n}", None, version(n)) for n in range(9))
    subject, _, body = str(CommitMessage(changes, "eng")).partition("\n")
    assert subject == f"Publish 9 flavors: flavor_0 {version(0)} and 8 more"
    assert all(f"{c.flavor}: no version -> {c.new}" in body for c in changes)


# On this machine


def test_a_commit_holds_the_edit_and_leaves_everything_else_as_it_is(mine):
    (mine / "staged.txt").write_text("staged")
    git(mine, "add", "staged.txt")
    (mine / "other.txt").write_text("dirty\n")
    (mine / "untracked.txt").write_text("untracked")
    before = tip(mine)

    done = publish(mine, NEW, push=False)

    assert (done.branch, done.pushed, done.note) == ("main", False, "")
    assert tip(mine) == done.commit
    assert git(mine, "rev-parse", "HEAD^") == before
    assert git(mine, "diff", "--name-only", "HEAD^", "HEAD") == "flavors.yaml"
    assert versions_at(mine) == {"a": version(10), "b": run_id(2), "c": run_id(3)}
    assert status(mine) == [" M other.txt", "A  staged.txt", "?? untracked.txt"]
    assert pickle.loads(pickle.dumps(done)) == done


def test_other_edits_of_the_file_are_not_committed_and_stay(mine):
    path = mine / "flavors.yaml"
    path.write_text(path.read_text().replace("# the head", "# my head"))
    publish(mine, NEW, push=False)
    assert git(mine, "show", "HEAD:flavors.yaml").startswith("# the head")
    assert path.read_text().startswith("# my head")
    assert git(mine, "diff", "--stat", "--cached") == ""
    changed = [line for line in git(mine, "diff", "-U0").splitlines() if line[:1] in "+-"]
    assert changed[2:] == ["-# the head", "+# my head"]


def test_a_run_id_that_was_never_committed_is_no_conflict(mine):
    write_back(mine, {"a": run_id(77)})
    publish(mine, NEW, push=False)
    assert versions_at(mine, "HEAD")["a"] == NEW["a"]
    assert status(mine) == []


def test_where_nothing_changed_there_is_no_commit(mine):
    publish(mine, NEW, push=False)
    before = tip(mine)
    done = publish(mine, NEW, push=False)
    assert (done.commit, tip(mine)) == (None, before)


def test_line_endings_in_the_working_tree_are_the_users(mine):
    git(mine, "config", "core.autocrlf", "true")
    (mine / "flavors.yaml").unlink()
    git(mine, "checkout", "-q", "--", "flavors.yaml")
    publish(mine, NEW, push=False)
    assert b"\r\n" in (mine / "flavors.yaml").read_bytes()
    assert "\r" not in git(mine, "show", "HEAD:flavors.yaml")
    assert status(mine) == []


def test_the_project_may_lie_below_the_top_and_the_mode_is_kept(tmp_path, bare):
    root = clone(bare, "nested") / "team" / "models"
    root.mkdir(parents=True)
    git(root, "mv", "../../flavors.yaml", "flavors.yaml")
    (root / "flavors.yaml").chmod(0o755)
    commit(root, "move")
    publish(root, NEW, push=False)
    assert git(root, "ls-tree", "HEAD", "flavors.yaml").startswith("100755")
    assert git(root, "diff", "--name-only", "HEAD^", "HEAD") == "team/models/flavors.yaml"
    assert status(root) == []
    assert is_own_commit(root, "HEAD")


def test_author_and_committer_are_the_users_or_else_the_publishers_own(mine, monkeypatch):
    publish(mine, NEW, push=False)
    who = "--format=%an <%ae> %cn <%ce>"
    own = "adroit-publish <adroit-publish@localhost>"
    assert git(mine, "log", "-1", who) == f"{own} {own}"
    git(mine, "config", "user.name", "Ada")
    git(mine, "config", "user.email", "ada@example.invalid")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "CI")
    publish(mine, {"b": version(11)}, push=False)
    shown = git(mine, "log", "-1", who)
    assert shown == "Ada <ada@example.invalid> CI <ada@example.invalid>"


def test_a_commit_is_signed_where_the_user_signs_commits(mine, tmp_path):
    require(shutil.which("ssh-keygen"), "ssh-keygen (Debian's openssh-client)")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for name, value in {
        "commit.gpgSign": "true",
        "gpg.format": "ssh",
        "user.signingKey": f"{key}.pub",
    }.items():
        git(mine, "config", name, value)
    publish(mine, NEW, push=False)
    assert "BEGIN SSH SIGNATURE" in git(mine, "cat-file", "commit", "HEAD")
    key.unlink()
    with pytest.raises(StoreError, match="commit-tree"):
        check_commit(mine, push=False)


def test_git_variables_of_a_caller_lead_to_no_other_repository(mine, theirs, monkeypatch):
    before = tip(theirs)
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(theirs / ".git" / "index"))
    write_back(mine, NEW)
    edits = version_edits(mine, NEW)
    done = commit_edits(mine, edits, message(NEW), push=False)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert (tip(mine), tip(theirs)) == (done.commit, before)
    assert status(theirs) == []


def test_a_detached_head_takes_a_commit(mine):
    git(mine, "checkout", "-q", "--detach")
    done = publish(mine, NEW, push=False)
    assert done.branch is None
    assert tip(mine, "HEAD") == done.commit != tip(mine, "main")


def test_a_held_index_leaves_everything_as_it_was(mine):
    write_back(mine, NEW)
    before, edits = tip(mine), version_edits(mine, NEW)
    (mine / ".git" / "index.lock").touch()
    with pytest.raises(StoreError, match=r"index\.lock"):
        commit_edits(mine, edits, message(NEW), push=False)
    (mine / ".git" / "index.lock").unlink()
    assert (tip(mine), status(mine)) == (before, [" M flavors.yaml"])


# To a remote


def test_a_push_adds_one_commit_and_the_clone_has_it_too(mine, bare):
    before = tip(bare)
    hook(bare, "pre-receive", "echo x >> pushes")
    check_commit(mine, push=True, flavors=["a"])
    done = publish(mine, NEW, push=True)
    assert (done.branch, done.pushed, done.note) == ("origin/main", True, "")
    assert (bare / "pushes").read_text() == "x\n"
    assert tip(bare) == tip(mine) == tip(mine, "origin/main") == done.commit
    assert git(bare, "rev-parse", "main^") == before
    assert status(mine) == []


def test_on_a_moved_branch_the_edit_is_made_again_and_the_clone_follows(mine, theirs, bare):
    publish(theirs, {"b": version(20)}, push=True)
    push_change(theirs, "other.txt", "changed by them\n")
    push_change(theirs, "new.txt", "new\n")
    (mine / "mine.txt").write_text("staged")
    git(mine, "add", "mine.txt")

    done = publish(mine, NEW, push=True)

    assert versions_at(bare) == {"a": version(10), "b": version(20), "c": run_id(3)}
    assert tip(bare) == tip(mine) == done.commit
    assert done.note == ""
    assert (mine / "other.txt").read_text() == "changed by them\n"
    assert git(bare, "log", "--merges", "--oneline") == ""
    assert status(mine) == ["A  mine.txt"]


@pytest.mark.parametrize("stage", [False, True])
def test_a_clone_that_would_lose_something_does_not_follow(mine, theirs, bare, stage):
    push_change(theirs, "other.txt", "changed by them\n")
    (mine / "other.txt").write_text("changed by me\n")
    if stage:
        git(mine, "add", "other.txt")
    before, changes = tip(mine), status(mine)
    done = publish(mine, NEW, push=True)
    assert tip(bare) == done.commit
    assert "git pull" in done.note
    assert tip(mine) == before
    assert status(mine) == [" M flavors.yaml", *changes]
    assert (mine / "other.txt").read_text() == "changed by me\n"
    assert NEW["a"] in (mine / "flavors.yaml").read_text()


def test_further_edits_of_the_file_survive_a_moved_branch(mine, theirs, bare):
    publish(theirs, {"b": version(20)}, push=True)
    path = mine / "flavors.yaml"
    path.write_text(path.read_text().replace("# the head", "# my head"))
    done = publish(mine, NEW, push=True)
    assert versions_at(bare)["a"] == NEW["a"]
    assert "# my head" not in git(bare, "show", "main:flavors.yaml")
    assert path.read_text().startswith("# my head")
    assert "git pull" in done.note


def test_commits_of_ones_own_are_not_pushed_along(mine, bare):
    (mine / "other.txt").write_text("not for others yet\n")
    commit(mine, "work in progress")
    with pytest.raises(RefusedError) as caught:
        check_commit(mine, push=True)
    assert "git push origin HEAD:main" in str(caught.value)
    done = publish(mine, NEW, push=True)
    assert git(bare, "log", "--format=%s", "main") == f"Publish a {NEW['a']}\nfirst"
    assert "git pull" in done.note


def test_another_version_of_the_same_flavor_stops_the_push_with_both_values(mine, theirs, bare):
    publish(theirs, {"a": version(20)}, push=True)
    before, local = tip(bare), tip(mine)
    with pytest.raises(RefusedError) as caught:
        publish(mine, NEW, push=True)
    assert (caught.value.got, caught.value.wanted) == (version(20), run_id(1))
    assert "origin/main" in str(caught.value)
    assert (tip(bare), tip(mine)) == (before, local)
    assert NEW["a"] in (mine / "flavors.yaml").read_text()


def test_all_conflicts_are_named_and_none_of_the_edits_is_pushed(mine, theirs, bare):
    text = (theirs / "flavors.yaml").read_text().splitlines(keepends=True)
    text[1] = text[1].replace(run_id(1), version(20))
    del text[2]
    push_change(theirs, "flavors.yaml", "".join(text))
    before = tip(bare)
    with pytest.raises(RefusedError) as caught:
        publish(mine, {"a": version(10), "b": version(11), "c": version(12)}, push=True)
    assert version(20) in str(caught.value)
    assert "there is no flavor 'b'" in str(caught.value)
    assert tip(bare) == before


def test_the_same_version_set_by_another_is_nothing_to_do(mine, theirs, bare):
    publish(theirs, NEW, push=True)
    done = publish(mine, NEW, push=True)
    assert (done.commit, done.pushed, done.note) == (None, False, "")
    assert tip(mine) == tip(bare)
    assert status(mine) == []


def test_a_shallow_clone_pushes_also_onto_a_moved_branch(bare, theirs):
    push_change(theirs, "other.txt", "second\n")
    shallow = clone(bare, "shallow", "--depth", "1")
    publish(theirs, {"b": version(20)}, push=True)
    check_commit(shallow, push=True)
    done = publish(shallow, NEW, push=True)
    assert tip(bare) == tip(shallow) == done.commit
    assert git(shallow, "rev-parse", "--is-shallow-repository") == "true"
    assert git(bare, "rev-list", "--count", "main") == "4"
    assert is_own_commit(shallow, "HEAD")


def test_a_detached_head_pushes_where_the_branch_is_named(bare, mine):
    git(mine, "checkout", "-q", "--detach")
    with pytest.raises(SourceError, match="detached"):
        check_commit(mine, push=True)
    with pytest.raises(SourceError, match="no such branch"):
        check_commit(mine, push=True, branch="nowhere")
    check_commit(mine, push=True, branch="main")
    done = publish(mine, NEW, push=True, branch="main")
    assert tip(bare) == done.commit
    assert git(mine, "rev-parse", "HEAD") == git(bare, "rev-parse", "main^")


def test_a_hook_that_refuses_is_asked_once_and_quoted(mine, bare):
    hook(
        bare,
        "pre-receive",
        'echo x >> asked; echo "see https://bot:hunter2@host/policy" >&2;'
        ' printf "\\033[31mpull requests only\\n" >&2; exit 1',
    )
    before = tip(bare)
    with pytest.raises(RefusedError) as caught:
        publish(mine, NEW, push=True)
    said = str(caught.value)
    assert "pull requests only" in said
    assert "https://host/policy" in said
    assert "hunter2" not in said
    assert "\033" not in said
    assert (bare / "asked").read_text() == "x\n"
    assert tip(bare) == tip(mine) == before
    assert status(mine) == [" M flavors.yaml"]


def test_a_push_whose_answer_is_lost_is_found_on_the_remote(mine, bare):
    hook(bare, "post-receive", "echo x >> lost; kill -9 $PPID")
    done = publish(mine, NEW, push=True)
    assert (done.pushed, (bare / "lost").read_text()) == (True, "x\n")
    assert tip(bare) == tip(mine) == done.commit
    assert git(bare, "rev-list", "--count", "main") == "2"
    assert status(mine) == []


def test_a_lost_answer_is_found_below_commits_that_came_after_it(mine, theirs, bare):
    others = (
        'git -c user.name=t -c user.email=t@t commit-tree "main^{tree}" -p main -m later '
        "| xargs git update-ref refs/heads/main"
    )
    hook(bare, "post-receive", f"{others}; kill -9 $PPID")
    done = publish(mine, NEW, push=True)
    assert done.pushed
    assert git(bare, "rev-parse", "main^") == done.commit
    assert tip(mine) == tip(bare)


def test_a_branch_that_never_stands_still_is_given_up(mine, bare, monkeypatch):
    monkeypatch.setattr(git_push, "_ATTEMPTS", 3)
    monkeypatch.setattr(git_push, "_BACK_OFF_LIMIT_S", 0.01)
    moves = (
        f"cd {bare} && echo x >> moved && unset GIT_DIR && "
        'git -c user.name=t -c user.email=t@t commit-tree "main^{tree}" -p main -m moved '
        "| xargs git update-ref refs/heads/main"
    )
    hook(mine / ".git", "pre-push", moves)
    with pytest.raises(StoreError, match="faster") as caught:
        publish(mine, NEW, push=True)
    assert caught.value.transient
    assert (bare / "moved").read_text() == "x\n" * 3
    assert versions_at(bare)["a"] == run_id(1)


def test_a_remote_that_is_gone_is_an_error_of_the_network_and_loses_nothing(
    mine, bare, monkeypatch
):
    monkeypatch.setattr(git_push, "_BACK_OFF_LIMIT_S", 0.01)
    shutil.move(bare, bare.with_name("away"))
    with pytest.raises(StoreError) as caught:
        check_commit(mine, push=True)
    with pytest.raises(StoreError):
        publish(mine, NEW, push=True)
    assert caught.value.exit_code == 5
    shutil.move(bare.with_name("away"), bare)
    done = publish(mine, NEW, push=True)
    assert tip(bare) == done.commit
    assert status(mine) == []


class _Unauthorized(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_missing_credentials_are_an_error_at_once_and_never_shown(mine):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Unauthorized) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        began = time.monotonic()
        for user in ("", "bot:hunter2@"):
            url = f"http://{user}127.0.0.1:{server.server_port}/team/models.git"
            git(mine, "remote", "set-url", "origin", url)
            with pytest.raises(StoreError) as caught:
                check_commit(mine, push=True)
            assert "127.0.0.1" in str(caught.value)
            assert "hunter2" not in str(caught.value)
        assert time.monotonic() - began < 20
        server.shutdown()
        thread.join()


# Refused before any work


def test_a_plain_checkout_passes_and_nothing_of_it_changes(mine):
    (mine / "other.txt").write_text("dirty\n")
    refs = git(mine, "for-each-ref")
    check_commit(mine, push=True, flavors=["a", "b"])
    assert git(mine, "for-each-ref") == refs
    assert status(mine) == [" M other.txt"]


def test_what_is_no_checkout_is_refused(tmp_path, bare):
    for place in (tmp_path, bare):
        with pytest.raises(SourceError):
            check_commit(place, push=False)


def test_without_git_the_error_says_so(mine, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="git cannot be run"):
        check_commit(mine, push=False)


def test_an_unborn_branch_is_refused(tmp_path):
    git(tmp_path, "init", "-q")
    with pytest.raises(SourceError, match="no commit yet"):
        check_commit(tmp_path, push=False)


def test_a_flavor_that_is_not_committed_is_refused(mine):
    path = mine / "flavors.yaml"
    path.write_text(path.read_text() + "d: {config: projects/m/config.yaml, conda_env: s}\n")
    with pytest.raises(SourceError, match="has no d"):
        check_commit(mine, push=False, flavors=["a", "d"])


def test_a_file_that_is_not_committed_is_refused(mine):
    git(mine, "rm", "-q", "--cached", "flavors.yaml")
    git(mine, "commit", "-q", "-m", "gone")
    with pytest.raises(SourceError, match=r"no file flavors\.yaml"):
        check_commit(mine, push=False)


def test_staged_changes_of_the_file_are_refused_and_kept(mine):
    write_back(mine, {"b": version(5)})
    git(mine, "add", "flavors.yaml")
    with pytest.raises(DirtyTree):
        check_commit(mine, push=False)
    with pytest.raises(DirtyTree):
        publish(mine, NEW, push=False)
    assert version(5) in git(mine, "diff", "--cached")


@pytest.mark.parametrize("kind", ["merge", "rebase", "cherry-pick"])
def test_an_operation_underway_is_refused(mine, theirs, kind):
    push_change(theirs, "other.txt", "theirs\n")
    (mine / "other.txt").write_text("mine\n")
    commit(mine, "mine")
    git(mine, "fetch", "-q")
    with pytest.raises(subprocess.CalledProcessError):
        git(mine, kind, "origin/main")
    for attempt in (check_commit, lambda root, push: publish(root, NEW, push=push)):
        with pytest.raises(SourceError, match=f"A {kind} is underway"):
            attempt(mine, push=False)


def test_a_push_needs_a_remote_and_an_upstream(mine):
    git(mine, "branch", "--unset-upstream")
    with pytest.raises(SourceError, match="follows no branch") as caught:
        check_commit(mine, push=True)
    assert caught.value.next_step.startswith("git push -u origin main")
    git(mine, "remote", "remove", "origin")
    for branch in (None, "main"):
        with pytest.raises(SourceError, match="no remote"):
            check_commit(mine, push=True, branch=branch)


def test_a_push_of_versions_that_only_this_machine_has_is_refused():
    text = b'[targets.%s]\ntracking_uri = "sqlite:///m.db"\nbundles = "%s"\n'
    local = parse_targets(text % (b"here", b"file:b"), "adroit.toml", "/base").by_name["here"]
    shared = parse_targets(text % (b"there", b"s3://bucket/b"), "adroit.toml", "/base")
    with pytest.raises(RefusedError, match="this machine only"):
        refuse_local_push(local)
    refuse_local_push(shared.by_name["there"])
