"""``python -m adroit_publish doctor``: every kind of trouble has a row, and none hides another."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from adroit_publish.doctor.checkout import Check, packages
from adroit_publish.doctor.checks import Probe, ask
from adroit_publish.errors import ConfigError, RefusedError, SourceError, StoreError
from adroit_publish.gates import sandbox
from tests.servers.eng_account import ACCOUNT, BASE, eng_account
from tests.servers.fake_databricks import TOKEN, FakeDatabricks
from tests.servers.fault_proxy import FaultProxy
from tests.servers.mlflow_servers import free_port
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY
from tests.support.checkouts import FLOW, git, make_checkout
from tests.support.requirements import require

pytest_plugins = ["tests.servers.mlflow_servers", "tests.servers.object_servers"]

KEEP_RECORDS_HERE = "METAFLOW_DEFAULT_DATASTORE=local METAFLOW_DEFAULT_METADATA=local"
EXPORTS = "export DATABRICKS_HOST=https://WORKSPACE\nexport DATABRICKS_TOKEN=dapi..."
RUN = "0123456789abcdef0123456789abcdef"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    """A tracking store of MLflow's, empty."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    MlflowClient(uri).create_experiment("t")
    return uri


@pytest.fixture
def checkout(tmp_path, tracking_uri):
    """Makes a checkout with the target ``local`` and further lines for adroit.toml."""

    def make(target_lines=""):
        flavors = {"a": RUN, "b": RUN}
        return make_checkout(tmp_path / "repo", tracking_uri, flavors, target_lines=target_lines)

    return make


@pytest.fixture
def home(tmp_path):
    """A home with nothing in it."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def doctor(root, home, *arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "adroit_publish", "doctor", *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent), "HOME": str(home)} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def examined(root, home, *arguments, code, **environ):
    """The rows by name, once the exit code and the whole are what they should be."""
    done = doctor(root, home, *arguments, "--json", **environ)
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    found = json.loads(done.stdout)
    assert found["ok"] is (code == 0)
    for row in found["checks"]:
        assert set(row) == {"name", "state", "found", "next_step"}
        assert row["state"] in ("ok", "warning", "problem", "not needed")
        assert row["next_step"] or row["state"] in ("ok", "not needed"), row
    return {row["name"]: row for row in found["checks"]}


def problems(rows):
    return [name for name, row in rows.items() if row["state"] == "problem"]


def warnings(rows):
    return [name for name, row in rows.items() if row["state"] == "warning"]


def target(name, tracking_uri="sqlite:////nowhere.db", **keys):
    lines = {"tracking_uri": tracking_uri, "bundles": "file:.adroit/other"} | keys
    return f"\n[targets.{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items())


def tree(*roots):
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for root in roots
        for path in [root, *root.rglob("*")]
    }


# All well.


def test_all_is_well_on_a_local_target_and_nothing_is_written(checkout, home, tmp_path):
    require(sandbox.available() != "plain", "no sandbox works on this machine")
    root = checkout()
    (tmp_path / "temporary").mkdir()
    temporary = {"TMPDIR": str(tmp_path / "temporary")}
    before = tree(root, home)
    rows = examined(root, home, code=0, **temporary)
    assert {row["state"] for row in rows.values()} == {"ok", "not needed"}
    assert {n for n, row in rows.items() if row["state"] == "not needed"} == {
        *("AWS account", "image registry", "Docker engine", "git upstream"),
        *("Metaflow UI", "Databricks login", "signatures"),
    }
    assert rows["target"]["found"] == "local: it is default_target"
    assert rows["Metaflow user"]["found"] == "tester (METAFLOW_USER)"
    table = doctor(root, home, **temporary)
    assert "This machine can publish." in table.stdout
    assert tree(root, home) == before
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_places_of_an_account_are_asked_and_only_a_docker_engine_is_missing(
    checkout, home, tmp_path, proxied_server
):
    with eng_account(tmp_path, proxied_server) as eng:
        root = checkout(eng.target_lines + 'sitevars = "s3://nextdoor-adroit/sitevars/x.json"\n')
        envs = f"plain:\n  image: {BASE}\n  environment: environment.yml\n"
        (root / "conda_envs.yaml").write_text(envs)
        nowhere = f"unix://{tmp_path}/docker.sock"
        rows = examined(root, home, code=4, **eng.environ, DOCKER_HOST=nowhere)
    assert problems(rows) == ["Docker engine"]
    assert nowhere in rows["Docker engine"]["found"]
    assert "--verify process" in rows["Docker engine"]["next_step"]
    asked = ("AWS account", "bundle store", "image registry", "sitevar", "tracking server")
    assert {rows[name]["state"] for name in asked} == {"ok"}
    assert ACCOUNT in rows["AWS account"]["found"]
    assert "s3://nextdoor-adroit/bundles" in rows["bundle store"]["found"]
    assert rows["tracking server"]["found"] == proxied_server


# The target.


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["--target", "other"], {"ADROIT_TARGET": "local"}, "other: --target names it"),
        ([], {"ADROIT_TARGET": "other"}, "other: ADROIT_TARGET names it"),
        ([], {"AWS_PROFILE": "them"}, "other: AWS_PROFILE=them is one of its profiles"),
    ],
)
def test_it_tells_why_the_target_is_the_one_it_is(checkout, home, arguments, environ, why):
    root = checkout(target("other") + 'profiles = ["them"]\n')
    rows = examined(root, home, *arguments, code=3, **environ)
    assert rows["target"]["found"] == why
    assert problems(rows) == ["tracking server"]
    assert "/nowhere.db" in rows["tracking server"]["found"]


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--target", "nowhere"], {}, "There is no target 'nowhere', which --target names."),
        ([], {"AWS_PROFILE": "nobody"}, "No target holds the AWS profile 'nobody'"),
        ([], {"CI": "true"}, "Under CI"),
    ],
)
def test_a_target_that_is_refused_is_a_row_and_the_others_are_there(
    checkout, home, arguments, environ, said
):
    rows = examined(checkout(), home, *arguments, code=2, **environ)
    assert problems(rows) == ["target"]
    assert rows["target"]["found"].startswith(said)
    assert "--target NAME" in rows["target"]["next_step"]
    for name in ("AWS account", "bundle store", "image registry", "sitevar", "tracking server"):
        assert rows[name]["state"] == "not needed"
    assert rows["config.yaml"]["state"] == rows["git checkout"]["state"] == "ok"


# Files.


def test_all_problems_of_all_files_are_told(checkout, home):
    root = checkout()
    (root / "flavors.yaml").write_text(
        "a:\n  config: projects/doubler/config.yaml\n  conda_env: gone\n  verison: 1\n"
        "b:\n  conda_env: plain\n"
    )
    rows = examined(root, home, code=2)
    assert problems(rows) == ["flavors.yaml"]
    assert "flavors.yaml:4: " in rows["flavors.yaml"]["found"]
    assert "flavors.yaml:5: " in rows["flavors.yaml"]["found"]
    assert rows["bundle store"]["state"] == rows["tracking server"]["state"] == "ok"


def test_a_projects_problems_and_a_missing_env_are_told_once(checkout, home):
    root = checkout()
    text = (root / "flavors.yaml").read_text()
    (root / "flavors.yaml").write_text(text.replace("conda_env: plain", "conda_env: plian"))
    (root / "projects/doubler/config.yaml").write_text("model_name: other\nserve: 7\n")
    rows = examined(root, home, code=2)
    assert problems(rows) == ["conda_envs.yaml", "config.yaml"]
    assert rows["conda_envs.yaml"]["found"].count("plian") == 1
    lines = rows["config.yaml"]["found"].splitlines()
    assert len(lines) == len(set(lines))  # both flavors have this file
    assert {line.split(": ")[0] for line in lines} == {
        "projects/doubler/config.yaml:1",
        "projects/doubler/config.yaml:2",
    }


def test_broken_targets_leave_the_other_rows(checkout, home):
    root = checkout("bundels = 1\n")
    (root / "conda_envs.yaml").write_text("plain: [\n")
    rows = examined(root, home, code=2)
    assert problems(rows) == ["conda_envs.yaml", "adroit.toml"]
    assert rows["target"]["state"] == "not needed"
    assert rows["config.yaml"]["state"] == "ok"


def test_outside_of_a_checkout_it_says_so(home):
    rows = examined(home, home, code=2)
    assert problems(rows)[0] == "flavors.yaml"
    assert "git checkout" in problems(rows)
    assert "cd to the repository's root" in rows["flavors.yaml"]["next_step"]


def test_a_package_of_another_version_is_told_with_what_is_asked_for(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\nrequires-python = ">=99"\ndependencies = ["boto3>=99", "nopackage", "click"]\n'
    )
    with pytest.raises(ConfigError) as failure:
        packages("packages", project)
    lines = failure.value.what.splitlines()
    assert [line.split()[0] for line in lines] == ["python", "boto3", "nopackage"]
    assert "boto3>=99 is needed" in lines[1]
    assert "pip install -r requirements.lock" in failure.value.next_step


# Places.


def test_with_everything_away_it_is_told_in_time_and_the_rest_is_told_too(checkout, home):
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        away = f"http://127.0.0.1:{silent.getsockname()[1]}"  # takes connections, never answers
        lines = target(
            "away",
            away,
            account=ACCOUNT,
            bundles="s3://bucket-of-adroit/bundles",
            images="registry.example/adroit",
            images_endpoint=away,
            sitevars="s3://bucket-of-adroit/sitevar.json",
        )
        began = time.monotonic()
        rows = examined(
            checkout(lines),
            home,
            "--target=away",
            code=5,
            **CREDENTIALS,
            AWS_ENDPOINT_URL=away,
            DOCKER_HOST=away.replace("http", "tcp"),
        )
        took_s = time.monotonic() - began
    assert problems(rows) == [
        *("AWS account", "bundle store", "image registry", "sitevar", "Docker engine"),
        "tracking server",
    ]
    for name in problems(rows):
        late = "There was no answer within 7 s"
        assert (late in rows[name]["found"]) is (name != "image registry")
    assert "where: s3://bucket-of-adroit/bundles" in rows["bundle store"]["found"]
    assert f"where: {away}" in rows["tracking server"]["found"]
    assert rows["config.yaml"]["state"] == rows["target"]["state"] == "ok"
    assert took_s < 60  # twice seven, the imports, a busy machine; Docker alone takes 600 s


def test_a_tracking_server_that_refuses_connections_is_told_as_that(checkout, home):
    away = f"http://127.0.0.1:{free_port()}"
    rows = examined(checkout(target("away", away)), home, "--target=away", code=3)
    assert problems(rows) == ["tracking server"]
    assert "The tracking server cannot be reached." in rows["tracking server"]["found"]
    assert away in rows["tracking server"]["found"]


def test_the_credentials_of_another_account_are_told(checkout, home, moto_server):
    bundles = moto_server.new_bucket()
    lines = target("eng", account="210987654321", bundles=f"s3://{bundles}/x")
    rows = examined(
        checkout(lines.replace("sqlite:////nowhere.db", "databricks") + 'profiles = ["eng"]\n'),
        home,
        "--target=eng",
        code=4,
        **CREDENTIALS,
        AWS_ENDPOINT_URL=moto_server.endpoint,
    )
    assert problems(rows)[0] == "AWS account"
    found = rows["AWS account"]["found"]
    assert f"got: {ACCOUNT}" in found
    assert "wanted: 210987654321" in found
    assert rows["AWS account"]["next_step"] == "export AWS_PROFILE=eng"


def test_a_target_that_takes_any_account_is_a_warning(checkout, home, moto_server, tracking_uri):
    lines = target("open", tracking_uri, bundles=f"s3://{moto_server.new_bucket()}/x")
    aws = {**CREDENTIALS, "AWS_ENDPOINT_URL": moto_server.endpoint}
    rows = examined(checkout(lines), home, "--target=open", code=0, **aws)
    assert warnings(rows) == ["AWS account", "git upstream"]
    assert rows["AWS account"]["next_step"] == f'account = "{ACCOUNT}" in adroit.toml'


def test_a_store_that_is_a_file_is_told(checkout, home):
    root = checkout()
    (root / ".adroit").mkdir()
    (root / ".adroit/bundles").write_text("")
    rows = examined(root, home, code=4)
    assert problems(rows) == ["bundle store"]


def test_a_sitevar_that_is_none_is_told(checkout, home):
    root = checkout()
    (root / ".adroit").mkdir()
    (root / ".adroit/sitevars.json").write_text("[]")
    assert problems(examined(root, home, code=2)) == ["sitevar"]


# Databricks.


def test_without_databrickscfg_it_says_the_two_lines_to_export(checkout, home):
    rows = examined(checkout(target("dbx", "databricks")), home, "--target=dbx", code=4)
    assert problems(rows) == ["Databricks login"]
    assert f"{home}/.databrickscfg does not exist" in rows["Databricks login"]["found"]
    assert rows["Databricks login"]["next_step"] == EXPORTS
    assert rows["tracking server"]["state"] == "not needed"


def test_of_a_malformed_databrickscfg_nothing_is_shown(checkout, home):
    (home / ".databrickscfg").write_text(f"host = https://x\ntoken {TOKEN}\n")
    root = checkout(target("dbx", "databricks"))
    rows = examined(root, home, "--target=dbx", code=3)
    assert problems(rows) == ["Databricks login"]
    assert rows["Databricks login"]["next_step"] == EXPORTS
    for said in (json.dumps(rows), doctor(root, home, "--target=dbx").stdout):
        assert TOKEN not in said


def test_a_workspace_tells_who_we_are_or_that_the_token_is_wrong(checkout, home):
    root = checkout(target("dbx", "databricks"))
    with FakeDatabricks().running() as workspace:
        section = f"[DEFAULT]\nhost = {workspace.url}\ntoken = "
        (home / ".databrickscfg").write_text(section + TOKEN)
        rows = examined(root, home, "--target=dbx", code=0)
        assert rows["tracking server"]["found"] == f"{workspace.url}, as jane@nextdoor.com"
        (home / ".databrickscfg").write_text(section + "dapi-another")
        rows = examined(root, home, "--target=dbx", code=3)
    assert problems(rows) == ["tracking server"]
    assert "refuses us" in rows["tracking server"]["found"]
    assert workspace.url in rows["tracking server"]["next_step"]
    assert "dapi-another" not in json.dumps(rows)


# Metaflow.


def metaflow_home(home, name="config.json", **settings):
    directory = home / ".metaflowconfig"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(
        json.dumps({f"METAFLOW_{key}": value for key, value in settings.items()})
    )
    return {"METAFLOW_HOME": str(directory)}


def test_a_metaflow_bucket_of_another_account_is_a_warning_with_the_one_line(
    checkout,
    home,
    moto_server,
    tracking_uri,
):
    bucket = f"s3://{moto_server.new_bucket()}/metaflow"
    s3 = {"DEFAULT_DATASTORE": "s3", "DATASTORE_SYSROOT_S3": bucket, "UI_URL": "https://ui.test"}
    environ = metaflow_home(home, **s3) | CREDENTIALS
    root = checkout(target("eng", tracking_uri, account=ACCOUNT))
    for owner, state in ((ACCOUNT, "ok"), ("210987654321", "warning")):
        with FaultProxy(moto_server.endpoint, bucket_owner=owner) as proxy:
            endpoints = {
                "AWS_ENDPOINT_URL": moto_server.endpoint,
                "AWS_ENDPOINT_URL_S3": proxy.endpoint,
            }
            rows = examined(root, home, "--target=eng", code=0, **environ, **endpoints)
        assert rows["Metaflow datastore"]["state"] == state
    assert bucket.removesuffix("metaflow") in rows["Metaflow datastore"]["found"]
    assert rows["Metaflow datastore"]["next_step"] == KEEP_RECORDS_HERE
    assert "datastore s3, metadata local" in rows["Metaflow"]["found"]
    assert rows["Metaflow UI"]["found"] == "https://ui.test"
    here = dict(each.split("=") for each in KEEP_RECORDS_HERE.split())
    rows = examined(root, home, "--target=eng", code=0, **environ, **endpoints, **here)
    assert rows["Metaflow datastore"]["state"] == "ok"


def test_a_metaflow_profile_is_read_and_a_missing_one_is_a_problem(checkout, home):
    root = checkout()
    environ = metaflow_home(home, "config_work.json", DEFAULT_METADATA="service")
    rows = examined(root, home, code=0, METAFLOW_PROFILE="work", **environ)
    assert "profile work" in rows["Metaflow"]["found"]
    assert "metadata service" in rows["Metaflow"]["found"]
    rows = examined(root, home, code=2, METAFLOW_PROFILE="gone", **environ)
    assert problems(rows) == ["Metaflow"]
    assert "config_gone.json" in rows["Metaflow"]["found"]
    assert "METAFLOW_PROFILE" in rows["Metaflow"]["next_step"]


def test_root_is_told_that_metaflow_refuses_it(checkout, home):
    nobody = dict.fromkeys(("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"), "root")
    rows = examined(checkout(), home, code=0, **nobody)
    assert rows["Metaflow user"]["state"] == "warning"
    assert rows["Metaflow user"]["next_step"] == "export METAFLOW_USER=your.name"
    rows = examined(root_of(home), home, code=0, **nobody | {"USER": "jane"})
    assert rows["Metaflow user"]["found"] == "jane (as logged in)"


def root_of(home):
    return home.parent / "repo"


# git.


def test_what_git_lacks_is_told(checkout, home, tmp_path, moto_server, tracking_uri):
    lines = target(
        "eng", tracking_uri, account=ACCOUNT, bundles=f"s3://{moto_server.new_bucket()}/x"
    )
    root = checkout(lines)
    aws = {**CREDENTIALS, "AWS_ENDPOINT_URL": moto_server.endpoint}

    def look(where, code=0):
        return examined(where, home, "--target=eng", code=code, **aws)

    rows = look(root)
    assert warnings(rows) == ["git upstream"]
    git(root, "remote", "add", "origin", str(tmp_path))
    assert "git push -u origin main" in look(root)["git upstream"]["next_step"]
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{root}", str(shallow))
    rows = look(shallow)
    assert warnings(rows) == ["git checkout"]
    assert rows["git checkout"]["next_step"] == "git fetch --unshallow"
    assert rows["git upstream"]["found"] == "origin/main"
    (shallow / ".git").rename(tmp_path / "away")
    rows = look(shallow, code=3)
    assert problems(rows) == ["git checkout"]


# The whole.


def test_no_secret_is_shown(checkout, home):
    away = f"http://127.0.0.1:{free_port()}"
    lines = target("away", away, bundles="s3://bucket-of-adroit/bundles", account=ACCOUNT)
    root = checkout(lines)
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIACANARY",
        "AWS_SECRET_ACCESS_KEY": "canary-1",
        "AWS_SESSION_TOKEN": "canary-2",
        "MLFLOW_TRACKING_USERNAME": "canary-3",
        "MLFLOW_TRACKING_PASSWORD": "canary-4",
        "DATABRICKS_TOKEN": "canary-5",
        "METAFLOW_SERVICE_AUTH_KEY": "canary-6",
        "METAFLOW_UI_URL": "https://jane:canary-7@ui.test/runs?token=canary-8",
    }
    aws = {"AWS_ENDPOINT_URL": away, "AWS_DEFAULT_REGION": "us-east-1"}
    for arguments in ([], ["--json"]):
        done = doctor(root, home, "--target=away", *arguments, **secrets, **aws)
        assert done.returncode == 5
        assert "https://ui.test/runs?..." in done.stdout
        assert "canary" not in (done.stdout + done.stderr).lower()


def test_a_check_that_hangs_or_has_a_bug_stops_no_other():
    never = threading.Event()

    def hangs(name):
        never.wait()

    def is_broken(name):
        raise ZeroDivisionError("canary")

    def refuses(name):
        raise RefusedError("No.", got=0, next_step="ask")

    checks = ask(
        [
            Probe("slow", hangs, SourceError),
            Probe("late", hangs, worst="warning", next_step="wait"),
            Probe("broken", is_broken),
            Probe("refused", refuses),
            Probe("well", lambda name: Check(name, "ok", "all")),
        ],
        0.3,
    )
    never.set()
    assert [(c.name, c.state, c.exit_code) for c in checks] == [
        ("slow", "problem", SourceError.exit_code),
        ("late", "warning", 0),
        ("broken", "problem", StoreError.exit_code),
        ("refused", "problem", RefusedError.exit_code),
        ("well", "ok", 0),
    ]
    assert checks[1].next_step == "wait"
    assert "ZeroDivisionError" in checks[2].found
    assert "canary" not in checks[2].found
    assert (checks[3].found, checks[3].next_step) == ("No.\ngot: 0", "ask")


def test_the_table_has_each_line_to_type_whole(checkout, home):
    done = doctor(checkout(target("dbx", "databricks")), home, "--target=dbx")
    assert done.returncode == 4
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["check", "state", "found", "next"]
    for line in EXPORTS.splitlines():
        assert any(shown.endswith(f"  {line}") for shown in lines)
    assert lines[-1] == "This machine cannot publish: Databricks login."
