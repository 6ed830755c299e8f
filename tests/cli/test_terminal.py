"""What a person at a terminal sees of the commands, and what a CI job does."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from adroit_publish import publish
from adroit_publish.cli.commands import cli
from adroit_publish.cli.entry.help import EXAMPLES
from adroit_publish.config.flavors import parse_flavors
from tests.support.checkouts import FLOW, make_checkout
from tests.support.requirements import require


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    root = tmp_path_factory.mktemp("terminal") / "repo"
    make_checkout(
        root,
        trained.tracking_uri,
        {"churn_daily": trained.good[0], "spam": "", "two": trained.good[1]},
    )
    for flavor in ("churn_daily", "two"):
        publish(flavor, root=root, verify="none")
    return root


def test_no_summary_of_a_command_is_cut_off():
    for words in ([], ["rollover"], ["sitevar"]):
        shown = CliRunner().invoke(cli, [*words, "--help"], terminal_width=80).output
        assert "..." not in shown.partition("Commands:")[2]
        assert max(map(len, shown.partition("Examples:")[0].splitlines())) <= 80


def test_every_command_has_examples_that_can_be_typed():
    assert set(EXAMPLES) == set(cli.commands)
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = click.parser.split_arg_string(line)
            if words[0] == "eval":
                words = ["completion", "bash"]
            command, context = cli, None
            while words and isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            assert command.name
            context = command.make_context(name, words)
            assert context.command is command
        shown = CliRunner().invoke(cli, [name, "--help"]).output
        assert lines[0] in shown


def test_the_help_of_a_flow_has_its_parameters():
    shown = CliRunner().invoke(cli, ["publish", "--help"]).output
    for option in ("--flavor TEXT", "--pending ", "--accept-new-lineage", "--verify TEXT"):
        assert option in shown
    assert "--stale" in CliRunner().invoke(cli, ["republish", "--help"]).output


def on_a_terminal(arguments, cwd, columns, **environ):
    parent, child = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdout=child,
        stderr=child,
        env=os.environ
        | {"TERM": "xterm", "COLUMNS": columns, "PYTHONPATH": str(FLOW.parent)}
        | environ,
    )
    os.close(child)
    output = b""
    while True:
        try:
            data = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        output += data
        if not data:
            break
    os.close(parent)
    assert program.wait() == 0, output
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", [("versions", "doubler"), ("status",), ("show", "churn_daily")])
def test_a_table_fits_the_terminal_and_keeps_names_whole(published, command):
    shown = on_a_terminal(["-m", "adroit_publish", *command], published, "80", NO_COLOR="1")
    version = str(parse_flavors((published / "flavors.yaml").read_bytes())["churn_daily"].version)
    assert version in shown
    assert "\x1b[" not in shown
    too_long = [line for line in shown.splitlines() if len(line) > 80]
    assert all(max(map(len, line.split())) > 60 for line in too_long), shown  # a digest stays whole


def test_colours_are_for_terminals_that_want_them(published):
    words = ["-m", "adroit_publish", "status"]
    assert "\x1b[1m" in on_a_terminal(words, published, "120")
    assert "\x1b[" not in on_a_terminal(words, published, "120", NO_COLOR="1")


def complete(root, line, **environ):
    """Asks for completions as bash does, by the script that is printed for it."""
    require(shutil.which("bash"), "bash is not installed")
    program = root.parent / "bin/adroit-publish"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m adroit_publish "$@"\n')
    program.chmod(0o755)
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        'eval "$(adroit-publish completion bash)"\n'
        f"COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n"
        '_adroit_publish_completion adroit-publish\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=root,
        env=os.environ
        | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_names(published):
    version = str(parse_flavors((published / "flavors.yaml").read_bytes())["churn_daily"].version)
    assert complete(published, "adroit-publish ver") == ["versions", "verify", "verify-ledger"]
    assert complete(published, "adroit-publish show ch") == ["churn_daily"]
    assert complete(published, "adroit-publish show " + version[:8]) == [version]
    assert complete(published, "adroit-publish versions ") == ["doubler"]
    assert complete(published, "adroit-publish hold s") == ["spam"]
    assert complete(published, "adroit-publish status --target ") == ["local"]
    assert complete(published, "adroit-publish rollover advance ") == []


def test_completion_knows_less_where_the_files_are_wrong(tmp_path):
    (tmp_path / "here").mkdir()
    assert complete(tmp_path / "here", "adroit-publish show ch") == []
    (tmp_path / "here/flavors.yaml").write_text("a: [")
    assert complete(tmp_path / "here", "adroit-publish show ch") == []


def test_running_rollovers_are_completed(published):
    point = ("sitevar", "set", "doubler", "churn_daily", "--why", "the first one")
    start = ("rollover", "start", "--from", "churn_daily", "--to", "two")
    places = ("--url", "http://127.0.0.1:1", "--metrics", "http://127.0.0.1:1")
    for words in (point, (*start, *places)):
        done = subprocess.run(
            [sys.executable, "-m", "adroit_publish", *words],
            cwd=published,
            env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert complete(published, "adroit-publish rollover advance ") == ["doubler"]


def test_the_script_for_zsh_is_one():
    require(shutil.which("zsh"), "zsh is not installed (a Debian package)")
    script = CliRunner().invoke(cli, ["completion", "zsh"]).output
    assert "_ADROIT_PUBLISH_COMPLETE=zsh_complete" in script
    subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    "command",
    [
        ("versions", "churn_daily"),
        ("history", "churn_daily"),
        ("verify-ledger", "churn_daily"),
        ("sitevar", "get", "churn_daily"),
        ("sitevar", "history", "churn_daily"),
        ("show", "churn_daily"),
        ("verify", "churn_daily", "--shallow"),
    ],
    ids=" ".join,
)
def test_a_flavors_name_stands_for_its_model_or_its_version(published, monkeypatch, command):
    monkeypatch.chdir(published)
    named = CliRunner().invoke(cli, list(command))
    assert named.exit_code == 0, named.output + str(named.exception)
    meant = [word.replace("churn_daily", "doubler") for word in command]
    if command[0] not in ("show", "verify"):
        assert named.output == CliRunner().invoke(cli, meant).output


def test_a_flavor_without_an_env_is_told_which_there_are(published, monkeypatch):
    monkeypatch.chdir(published)
    before = Path("flavors.yaml").read_text()
    Path("flavors.yaml").write_text(before + "\nnew:\n  config: projects/doubler/config.yaml\n")
    error = CliRunner().invoke(cli, ["status"]).exception
    Path("flavors.yaml").write_text(before)
    assert "'conda_env' is missing; one of: plain" in str(error)


def test_a_job_on_github_gets_groups_a_summary_and_takes_no_commands(tmp_path, trained):
    flavors = {"a": trained.good[0], "b": "e" * 32}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    summary = tmp_path / "summary.md"
    text = (root / "flavors.yaml").read_text()
    (root / "flavors.yaml").write_text(
        text.replace(
            "  version: " + "e" * 32, "  hold: '::set-env name=A::b'\n  version: " + "e" * 32
        )
    )
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(
        [sys.executable, str(FLOW), "run", "--pending", "--verify=none"],
        cwd=root,
        env=os.environ | {"HOME": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "::group::Metaflow run"
    assert [line for line in lines if line.startswith("::")] == [
        "::group::Metaflow run",
        "::endgroup::",
    ]
    assert [line for line in lines if line.startswith("a: upload layers ")]
    version = parse_flavors((root / "flavors.yaml").read_bytes())["a"].version
    assert f"| a | published | {version} | local |" in summary.read_text()


def test_quiet_leaves_the_stages_out(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    words = ["-m", "adroit_publish", "--quiet", "publish", "--flavor=a", "--verify=none"]
    shown = on_a_terminal(words, root, "120")
    assert "published  a: v" in shown
    assert "upload layers" not in shown
    assert "Workflow" not in shown
