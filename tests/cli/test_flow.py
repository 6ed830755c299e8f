"""The publish flow as a user runs it: a process, its output, its exit code."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.support.checkouts import FLOW, git, make_checkout


@pytest.fixture
def checkout(tmp_path, trained):
    return make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})


def command(*arguments):
    return [sys.executable, str(FLOW), "run", *arguments]


def run(root, *arguments, **environment):
    """Runs the flow in ``root``; gives its exit code, its output and what it said at the end."""
    done = subprocess.run(
        command(*arguments),
        cwd=root,
        env=os.environ | {"HOME": str(root.parent)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def versions(root):
    flavors = parse_flavors((root / "flavors.yaml").read_bytes())
    return {name: flavor.version for name, flavor in flavors.items()}


def test_the_flow_publishes_writes_back_and_leaves_a_card(checkout, trained):
    code, output = run(checkout, "--flavor=a")
    assert code == 0, output
    version = versions(checkout)["a"]
    assert version.startswith(f"v{trained.good[0][:8]}-")
    assert f"published  a: {version}  sha256:{version[-12:]}" in output
    assert "a: verify" in output
    assert git(checkout, "status", "--short") == "M flavors.yaml"
    (card,) = checkout.glob(".metaflow/**/cards/*.html")
    (data,) = re.findall(r'__MF_DATA__\["[^"]*"\] = "([^"]+)"', card.read_text())
    card_text = base64.b64decode(data).decode()
    assert version in card_text
    assert output.split("published  a: ")[1].split()[1] in card_text  # the manifest's digest
    assert "<object>" not in card_text


def test_good_flavors_are_published_and_the_broken_one_is_named(tmp_path, trained):
    flavors = {"a": trained.good[0], "b": "e" * 32, "c": trained.good[1], "d": trained.spy}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    code, output = run(root, "--pending")
    assert code == 3, output
    now = versions(root)
    assert (now["b"], now["d"]) == (flavors["b"], flavors["d"])
    assert now["a"].startswith("v")
    assert now["c"].startswith("v")
    assert "FAILED     b: " in output
    assert "FAILED     d: " in output
    assert "2 flavors were not published" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--flavor=b"], 2, "a"),
        (["--flavor=a", "--target=nowhere"], 2, "local"),
        ([], 2, "--flavor=NAME"),
        (["--flavor=a", f"--mlflow-run-id={'f' * 32}"], 3, "f" * 32),
    ],
    ids=["unknown flavor", "unknown target", "no flavor", "unknown run"],
)
def test_a_refused_run_ends_with_its_exit_code_and_one_message(checkout, arguments, code, message):
    before = (checkout / "flavors.yaml").read_bytes()
    got, output = run(checkout, *arguments)
    assert got == code, output
    assert message in output
    assert "Traceback" not in output
    assert "Internal error" not in output
    assert (checkout / "flavors.yaml").read_bytes() == before


def test_nothing_pending_is_nothing_to_do(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": ""})
    code, output = run(root, "--pending")
    assert code == 0, output
    assert "No flavor waits" in output


def test_a_refusal_is_not_retried(checkout):
    code, output = run(checkout, f"--mlflow-run-id={'f' * 32}", "--flavor=a", "--with", "retry")
    assert code == 3, output
    assert output.count("Task is starting") == 1


def test_it_runs_for_root_and_for_nobody(checkout):
    environment = {"METAFLOW_USER": "", "USER": "", "USERNAME": "", "LOGNAME": ""}
    code, output = run(checkout, "--flavor=nope", **environment)
    assert code == 2, output


def test_a_datastore_of_another_account_is_one_line_that_says_what_to_do(checkout, tmp_path):
    from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto

    home = tmp_path / "metaflow"
    home.mkdir()
    with running_moto() as server:
        settings = {
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_DATASTORE_SYSROOT_S3": "s3://bucket-of-the-data-account/metaflow",
            "METAFLOW_S3_ENDPOINT_URL": server.endpoint,
        }
        (home / "config.json").write_text(json.dumps(settings))
        environment = {
            "METAFLOW_HOME": str(home),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "METAFLOW_S3_RETRY_COUNT": "0",
        }
        code, output = run(checkout, "--flavor=a", "--target=local", **environment)
        assert code != 0
        assert "METAFLOW_DEFAULT_DATASTORE=local METAFLOW_DEFAULT_METADATA=local" in output
        way_out = {"METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"}
        code, output = run(
            checkout, "--flavor=a", "--target=local", "--verify=none", **environment, **way_out
        )
        assert code == 0, output


@pytest.mark.parametrize("kill_at", ["upload layers", "verify", "commit"])
def test_killed_in_any_stage_the_same_command_finishes(checkout, kill_at, trained):
    """SIGKILL to the whole process group as soon as the stage before is done."""
    stages = ["snapshot source", "upload layers", "upload manifest", "verify", "commit"]
    seen = stages[stages.index(kill_at) - 1]
    flow = subprocess.Popen(
        command("--flavor=a"),
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in flow.stdout:
        if f"a: {seen}" in line:
            os.killpg(flow.pid, signal.SIGKILL)
            break
    else:
        pytest.fail("the stage was never seen")
    flow.communicate()
    assert versions(checkout)["a"] == trained.good[0]
    code, output = run(checkout, "--flavor=a")
    assert code == 0, output
    assert versions(checkout)["a"].startswith("v")
    if kill_at in ("verify", "commit"):
        assert "0 of 4 layers sent" in output


def test_ctrl_c_ends_with_130_and_leaves_flavors_alone(checkout, trained):
    flow = subprocess.Popen(
        command("--flavor=a"),
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for line in flow.stdout:
        if "a: upload manifest" in line:
            os.killpg(flow.pid, signal.SIGINT)
            break
    output = flow.communicate()[0]
    assert flow.returncode == 130, output
    assert "Traceback" not in output
    assert "The same command goes on" in output
    assert versions(checkout)["a"] == trained.good[0]


def on_a_terminal(root, *arguments, columns="120"):
    """Runs a program through a pseudo-terminal, as a person would see it."""
    import pty

    parent, child = pty.openpty()
    program = subprocess.Popen(
        arguments,
        cwd=root,
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": "xterm", "COLUMNS": columns},
    )
    os.close(child)
    output = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            data = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        output += data
    os.close(parent)
    return program.wait(), output.decode().replace("\r\n", "\n")


def test_a_terminal_gets_bars_and_the_lines_stay_whole(checkout):
    code, output = on_a_terminal(checkout, *command("--flavor=a", "--verify=none"))
    assert code == 0, output
    assert "published  a: v" in output


def test_lines_on_a_terminal_begin_with_what_they_say(checkout):
    code, output = on_a_terminal(checkout, *command("--flavor=a", "--verify=none"))
    assert code == 0, output
    lines = output.splitlines()
    assert [line for line in lines if line.startswith("a: upload layers ")], output
    assert [line for line in lines if line.startswith("published  a: v")]
    assert not [line for line in lines if "(pid " in line or "Task is starting" in line]
    assert "\x1b[" not in output  # nothing took a second, so no bar was drawn


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--flavor=b"], 2),
        ([], 2),
        (["--flavor=a", "--pending"], 2),
        (["--flavor=a", "--target=nowhere"], 2),
        (["--flavor=a", "--verify=perhaps"], 2),
        (["--flavor=a", "--verify=image"], 2),
        (["--flavor=a", "--accept-gate=loss"], 2),
        (["--flavor=a", "--mlflow-run-id=abc"], 2),
        (["--flavor=held"], 4),
        (["--flavor=empty"], 2),
        (["--flavor=elsewhere"], 2),
        (["--flavor=no_env"], 2),
        (["--flavor=broken"], 2),
        (["--flavor=broken,empty"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_words_files_and_flavors_are_refused_without_a_run(checkout, arguments, code):
    (checkout / "projects/broken").mkdir()
    (checkout / "projects/broken/config.yaml").write_text("model_name: [\n")
    entry = "{}:\n  config: projects/{}/config.yaml\n  conda_env: {}\n{}"
    added = (
        ("held", "doubler", "plain", f'  version: {"a" * 32}\n  hold: "too slow"\n'),
        ("empty", "doubler", "plain", ""),
        ("elsewhere", "nowhere", "plain", f"  version: {'a' * 32}\n"),
        ("no_env", "doubler", "plian", f"  version: {'a' * 32}\n"),
        ("broken", "broken", "plain", f"  version: {'a' * 32}\n"),
    )
    with (checkout / "flavors.yaml").open("a") as flavors:
        flavors.writelines(entry.format(*fields) for fields in added)
    got, output = on_a_terminal(checkout, *command(*arguments))
    assert got == code, output
    for noise in ("Workflow starting", "Task", "Internal error", "Traceback", "terminal step"):
        assert noise not in output
    assert not list(checkout.glob(".metaflow/*/[0-9]*"))


def test_one_flavor_that_is_wrong_stops_no_other(checkout):
    with (checkout / "flavors.yaml").open("a") as flavors:
        flavors.write("empty:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n")
    code, output = run(checkout, "--flavor=a,empty", "--verify=none")
    assert code == 2, output
    assert "FAILED     empty: " in output
    assert versions(checkout)["a"].startswith("v")
