"""bootstrap/: the three scripts under bash and under zsh, in an empty home, with kubectl and aws
played by small programs. Nothing here leaves the machine."""

from __future__ import annotations

import configparser
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.servers.object_servers import free_ports
from tests.support.requirements import require

ROOT = Path(__file__).resolve().parents[2]
CONFIGURE, ACTIVATE, FORWARD = (
    "configure_metaflow.sh",
    "activate_metaflow.sh",
    "metaflow_port_forwarding.sh",
)
LIMIT_S = 60.0  # none of it takes so long, however busy the machine is
NEEDED = [
    "--datastore=s3://flows.example/metaflow",
    "--service-url=http://service.example:8080",
    "--ui-url=https://ui.example",
]
WRITTEN = {
    "METAFLOW_DEFAULT_DATASTORE": "s3",
    "METAFLOW_DEFAULT_METADATA": "service",
    "METAFLOW_DATASTORE_SYSROOT_S3": "s3://flows.example/metaflow",
    "METAFLOW_SERVICE_URL": "http://service.example:8080",
    "METAFLOW_UI_URL": "https://ui.example",
}
PROGRAMS = ["bash", "zsh", "env", "sed", "cat", "dirname", "mktemp", "rm", "sleep", "tail", "tr"]
# Serves on the local port as kubectl does, in a child, as a wrapper would. In the folder beside it:
# `calls` is written; it looks for `refuses` (ends at once), `silent` (accepts, and answers nothing)
# and `stubborn` (the child ignores TERM).
KUBECTL = """#!{python}
import json, os, signal, socket, sys
here = {state!r}
argv = sys.argv[1:]
port = int(argv[-1].partition(":")[0])
child = os.fork() if not os.path.exists(here + "/refuses") else 0
if child == 0 and not os.path.exists(here + "/refuses"):
    if os.path.exists(here + "/stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
with open(here + "/calls", "a") as calls:
    calls.write(json.dumps([os.getpid(), child, argv]) + "\\n")
if not child:
    sys.exit("error: services not found")
server = socket.create_server(("127.0.0.1", port))
while True:
    connection, _ = server.accept()
    if os.path.exists(here + "/silent"):
        with open(here + "/asked", "a") as asked:
            asked.write("x")
    elif connection.recv(4096):
        connection.sendall(b"HTTP/1.0 404 Not Found\\r\\n\\r\\n")
    connection.close()
"""
AWS = """#!{python}
import os, sys
if os.path.exists({state!r} + "/refuses"):
    sys.exit("Unable to locate credentials")
assert sys.argv[1:3] == ["sts", "get-caller-identity"], sys.argv
print("arn:aws:iam::111122223333:user/alice")
"""


class Machine:
    """An empty home, a checkout in a folder with spaces, and a PATH of programs made here.

    Attributes:
        shell: Path of the shell that everything is run by.
        home: HOME; empty.
        checkout: Holds ``bootstrap/``, as it is in the repository.
        programs: A folder, all of PATH.
        state: What the played programs write, and are told by.
        environ: The whole environment.
    """

    def __init__(self, shell: str, root: Path) -> None:
        self.shell = shell
        self.home, self.programs, self.state = root / "home", root / "bin", root / "state"
        self.checkout = root / "a check $out's"
        for each in (self.home, self.programs, self.state, self.checkout):
            each.mkdir()
        shutil.copytree(ROOT / "bootstrap", self.checkout / "bootstrap")
        for name in [*PROGRAMS, "curl"]:
            if found := shutil.which(name):
                (self.programs / name).symlink_to(found)
        self.write("python3", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        self.play("kubectl", KUBECTL)
        self.environ = {"HOME": str(self.home), "PATH": str(self.programs), "USER": "alice"}

    def write(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def play(self, name: str, text: str) -> None:
        self.write(name, text.format(python=sys.executable, state=str(self.state)))

    def script(self, name: str) -> str:
        return str(self.checkout / "bootstrap" / name)

    def run(
        self, script: str, *arguments: str, stdin: int = subprocess.DEVNULL, **environ: str
    ) -> tuple[int, str]:
        """Returns the exit code and what was printed, stderr and stdout."""
        return self.finish([self.shell, self.script(script), *arguments], stdin, environ)

    def shell_says(self, text: str, **environ: str) -> str:
        """Returns what the shell prints on running these lines; they have to succeed."""
        code, printed = self.finish([self.shell, "-c", text], subprocess.DEVNULL, environ)
        assert code == 0, printed
        return printed

    def finish(self, argv: list[str], stdin: int, environ: dict[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            argv,
            stdin=stdin,
            env=self.environ | environ,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        return done.returncode, done.stdout

    def config(self, name: str = "config.json") -> Path:
        return self.home / ".metaflowconfig" / name

    def calls(self) -> list[tuple[int, int, list[str]]]:
        """Every start of kubectl: its process, its child's, its arguments."""
        if not (self.state / "calls").exists():
            return []
        return [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]


@pytest.fixture(params=["bash", "zsh"])
def machine(request, tmp_path) -> Iterator[Machine]:
    shell = shutil.which(request.param)
    require(shell, f"{request.param} is not installed (a Debian package)")
    made = Machine(shell, tmp_path)
    yield made
    for pid in (pid for call in made.calls() for pid in call[:2] if pid):
        if alive(pid):  # of a test that failed
            os.kill(pid, signal.SIGKILL)


# For what takes seconds: started by zsh, a script goes on in bash from its first line.
bash_alone = pytest.mark.parametrize("machine", ["bash"], indirect=True)


@contextmanager
def typed(*lines: str) -> Iterator[int]:
    """A terminal on which these lines were typed, as a file descriptor for stdin."""
    master, slave = pty.openpty()
    os.write(master, "".join(f"{line}\n" for line in lines).encode())
    try:
        yield slave
    finally:
        os.close(master)
        os.close(slave)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.02)


# configure_metaflow.sh


def test_the_file_has_metaflows_keys_is_private_and_is_what_metaflow_reads(machine):
    assert machine.run(CONFIGURE, *NEEDED)[0] == 0
    assert json.loads(machine.config().read_text()) == WRITTEN
    assert stat.S_IMODE(machine.config().stat().st_mode) == 0o600
    asked = "import metaflow.metaflow_config as c; print(c.DATASTORE_SYSROOT_S3, c.UI_URL)"
    code, said = machine.finish([sys.executable, "-c", asked], subprocess.DEVNULL, {})
    assert (code, said) == (0, "s3://flows.example/metaflow https://ui.example\n")


def test_every_option_has_its_key_and_a_profile_its_file(machine):
    options = {
        "--service-internal-url": ("METAFLOW_SERVICE_INTERNAL_URL", "http://in.example"),
        "--sagemaker-role": ("METAFLOW_SAGEMAKER_IAM_ROLE", "arn:aws:iam::1:role/r"),
        "--sagemaker-image": ("METAFLOW_SAGEMAKER_IMAGE", "registry.example/i:1"),
        "--kubernetes-namespace": ("METAFLOW_KUBERNETES_NAMESPACE", "flows"),
        "--kubernetes-service-account": ("METAFLOW_KUBERNETES_SERVICE_ACCOUNT", "runner"),
        "--kubernetes-image": ("METAFLOW_KUBERNETES_CONTAINER_IMAGE", "registry.example/k:1"),
    }
    flat = [each for flag, (_, value) in options.items() for each in (flag, value)]
    code, said = machine.run(CONFIGURE, *NEEDED, *flat, "--profile", "eng")
    assert code == 0
    assert "export METAFLOW_PROFILE=eng" in said
    assert json.loads(machine.config("config_eng.json").read_text()) == WRITTEN | dict(
        options.values()
    )


def test_the_folder_is_metaflow_home_where_that_is_set(machine, tmp_path):
    folder = tmp_path / "else where" / "deep"
    assert machine.run(CONFIGURE, *NEEDED, METAFLOW_HOME=str(folder))[0] == 0
    assert [each.name for each in folder.iterdir()] == ["config.json"]
    assert not machine.config().parent.exists()


def test_whatever_a_value_holds_it_is_read_back_as_it_was_given(machine):
    odd = "quote \" ' back\\slash $HOME `id` %s = ünï 🙂 new\nline\ttab {}"
    assert machine.run(CONFIGURE, *NEEDED, "--sagemaker-image", odd)[0] == 0
    assert json.loads(machine.config().read_text())["METAFLOW_SAGEMAKER_IMAGE"] == odd


@pytest.mark.parametrize("left_out", range(len(NEEDED)))
def test_without_a_terminal_a_missing_value_is_named_and_nothing_is_written(machine, left_out):
    given = NEEDED[:left_out] + NEEDED[left_out + 1 :]
    code, said = machine.run(CONFIGURE, *given)
    flag = NEEDED[left_out].partition("=")[0]
    assert (code, said) == (2, f"configure_metaflow.sh: {flag} is missing\n")  # and no question
    assert not machine.config().parent.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--datastore=/tmp/x"],
        ["--datastore", "s3://"],
        ["--ui-url", "ui.example"],
        ["--ui-url="],
        ["--ui-url"],
        ["--sagemaker-role", "--yes"],
        ["--profile", "../evil"],
        ["--yes=no"],
        ["--no-such-option=1"],
        ["stray"],
        ["--sagemaker-image", b"\xff"],
    ],
)
def test_a_wrong_option_is_told_in_a_line_and_writes_nothing(machine, wrong):
    code, said = machine.run(CONFIGURE, *NEEDED, *wrong)
    assert code == 2
    assert re.fullmatch(r"configure_metaflow\.sh: .+\n", said)
    assert not machine.config().parent.exists()


def test_at_a_terminal_only_what_is_missing_is_asked_for(machine):
    with typed("s3://flows.example/metaflow", "https://ui.example", "") as terminal:
        code, said = machine.run(CONFIGURE, NEEDED[1], stdin=terminal)
    assert code == 0, said
    assert said.count("Datastore (") == said.count("UI (URL)") == 1
    assert "Metadata service" not in said
    assert json.loads(machine.config().read_text()) == WRITTEN


def test_at_a_terminal_an_answer_that_cannot_be_is_asked_for_again(machine):
    answers = ("s3://flows.example/metaflow", "", "ui.example", "https://ui.example", "")
    with typed(*answers) as terminal:
        code, said = machine.run(CONFIGURE, NEEDED[1], stdin=terminal)
    assert code == 0, said
    assert said.count("UI (URL)") == 3
    assert "--ui-url needs a value" in said
    assert json.loads(machine.config().read_text()) == WRITTEN


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80/a", "https://a.localhost:1"],
)
def test_a_service_of_this_machine_is_not_given_to_jobs(machine, url):
    rest = [NEEDED[0], NEEDED[2], f"--service-url={url}"]
    for job in ("--kubernetes-namespace=flows", "--sagemaker-image=i:1"):
        code, said = machine.run(CONFIGURE, *rest, job)
        assert code == 2
        assert f"'{url}' is this machine" in said
        assert "add --service-internal-url URL" in said
    code, said = machine.run(CONFIGURE, *rest, f"--service-internal-url={url}")
    assert (code, "no job reaches it" in said) == (2, True)
    assert not machine.config().parent.exists()
    code, said = machine.run(CONFIGURE, *rest)
    assert (code, "need --service-internal-url URL" in said) == (0, True)
    there = "--service-internal-url=http://metaflow.flows:8080"
    assert machine.run(CONFIGURE, *rest, there, "--kubernetes-namespace=flows", "--yes")[0] == 0


def test_a_service_whose_name_begins_like_this_machines_is_anothers(machine):
    rest = [NEEDED[0], NEEDED[2], "--kubernetes-namespace=flows", "--yes"]
    for host in ("localhost.example", "127.example", "mylocalhost"):
        assert machine.run(CONFIGURE, *rest, f"--service-url=http://{host}:80")[0] == 0


def test_the_same_again_has_nothing_to_do(machine):
    machine.run(CONFIGURE, *NEEDED)
    before = machine.config().stat()
    code, said = machine.run(CONFIGURE, *reversed(NEEDED))
    assert (code, "nothing to do" in said) == (0, True)
    after = machine.config().stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list(machine.config().parent.iterdir())) == 1


def test_a_file_that_differs_is_kept_without_an_answer_and_backed_up_with_one(machine):
    machine.config().parent.mkdir()
    old = b'{"METAFLOW_UI_URL": "https://old.example", "MINE": 1}'
    machine.config().write_bytes(old)

    code, said = machine.run(CONFIGURE, *NEEDED)
    assert (code, "--yes" in said, "  MINE\n" in said) == (2, True, True)
    with typed("n") as terminal:
        assert machine.run(CONFIGURE, *NEEDED, stdin=terminal)[0] == 4
    assert machine.config().read_bytes() == old
    assert len(list(machine.config().parent.iterdir())) == 1

    with typed("y") as terminal:
        assert machine.run(CONFIGURE, *NEEDED, stdin=terminal)[0] == 0
    assert json.loads(machine.config().read_text()) == WRITTEN
    (backup,) = machine.config().parent.glob("config.json.bak-*")
    assert backup.read_bytes() == old
    assert re.search(r"\.bak-\d{8}T\d{6}Z$", backup.name)


def test_two_replacements_in_a_second_keep_two_backups(machine):
    for number in "123":
        assert machine.run(CONFIGURE, *NEEDED, "--yes", f"--sagemaker-role={number}")[0] == 0
    kept = [json.loads(each.read_text()) for each in machine.config().parent.glob("*.bak-*")]
    assert sorted(each["METAFLOW_SAGEMAKER_IAM_ROLE"] for each in kept) == ["1", "2"]
    assert not list(machine.config().parent.glob("*.tmp"))


def test_a_file_that_is_no_json_is_replaced_like_one_that_differs(machine):
    machine.config().parent.mkdir()
    for broken in (b"not json", b"[1]", b"\xff"):
        machine.config().write_bytes(broken)
        assert machine.run(CONFIGURE, *NEEDED)[0] == 2
        assert machine.config().read_bytes() == broken
    assert machine.run(CONFIGURE, *NEEDED, "--yes")[0] == 0
    assert json.loads(machine.config().read_text()) == WRITTEN


def test_a_link_to_a_file_elsewhere_stays_a_link(machine, tmp_path):
    machine.config().parent.mkdir()
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles/config").write_text("{}")
    machine.config().symlink_to(tmp_path / "dotfiles/config")
    assert machine.run(CONFIGURE, *NEEDED, "--yes")[0] == 0
    assert machine.config().is_symlink()
    assert json.loads((tmp_path / "dotfiles/config").read_text()) == WRITTEN


def test_a_folder_that_cannot_be_written_is_a_line_and_no_traceback(machine):
    code, said = machine.run(CONFIGURE, *NEEDED, METAFLOW_HOME=os.devnull)
    assert code == 5
    assert re.fullmatch(r"configure_metaflow\.sh: /dev/null/config\.json: .+\n", said)


def test_show_prints_the_file_and_changes_nothing(machine):
    assert machine.run(CONFIGURE, "--show")[0] == 3
    machine.run(CONFIGURE, *NEEDED)
    code, said = machine.run(CONFIGURE, "--show")
    assert (code, json.loads(said.partition("\n")[2])) == (0, WRITTEN)


def test_check_asks_aws_first_and_goes_on_without_aws(machine):
    code, said = machine.run(CONFIGURE, *NEEDED, "--check", "--profile=a")
    assert (code, "aws is not installed" in said) == (0, True)
    machine.play("aws", AWS)
    code, said = machine.run(CONFIGURE, *NEEDED, "--check", "--profile=b")
    assert (code, "AWS knows you as arn:aws:iam::111122223333:user/alice" in said) == (0, True)
    (machine.state / "refuses").touch()
    code, said = machine.run(CONFIGURE, *NEEDED, "--check", "--profile=c")
    assert (code, "AWS_PROFILE" in said) == (5, True)
    assert sorted(each.name for each in machine.config().parent.iterdir()) == [
        "config_a.json",
        "config_b.json",
    ]


DATABRICKS = "https://adb-1.azuredatabricks.net"


def test_the_databricks_workspace_and_its_token_are_asked_for_and_kept_private(machine):
    with typed("https://ui.example", "adb-1", DATABRICKS, "dapi-secret") as terminal:
        code, said = machine.run(CONFIGURE, *NEEDED[:2], stdin=terminal)
    assert code == 0, said
    file = machine.home / ".databrickscfg"
    assert file.read_text() == f"[DEFAULT]\nhost = {DATABRICKS}\ntoken = dapi-secret\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "'adb-1' is not https://HOST" in said
    assert "dapi-secret" not in said  # neither printed nor echoed
    read = configparser.ConfigParser()  # as Databricks' own tools read it
    read.read(file)
    assert dict(read["DEFAULT"]) == {"host": DATABRICKS, "token": "dapi-secret"}


@pytest.mark.parametrize("answers", [("",), (DATABRICKS, "")], ids=["no host", "no token"])
def test_an_empty_answer_about_databricks_ends_nothing_and_writes_nothing_of_it(machine, answers):
    with typed("https://ui.example", *answers) as terminal:
        code, said = machine.run(CONFIGURE, *NEEDED[:2], "--profile=eng", stdin=terminal)
    assert code == 0, said
    assert "export METAFLOW_PROFILE=eng" in said  # it went on to its end
    assert json.loads(machine.config("config_eng.json").read_text()) == WRITTEN
    assert not (machine.home / ".databrickscfg").exists()


def test_a_file_that_is_kept_does_not_keep_databricks_from_being_asked_for(machine):
    machine.config().parent.mkdir()
    machine.config().write_text("{}")
    with typed("https://ui.example", "", DATABRICKS, "dapi-1") as terminal:
        code, said = machine.run(CONFIGURE, *NEEDED[:2], stdin=terminal)
    assert code == 4, said
    assert machine.config().read_text() == "{}"
    assert "token = dapi-1" in (machine.home / ".databrickscfg").read_text()


def test_a_databricks_profile_that_is_there_is_kept_and_another_is_added(machine):
    file = machine.home / ".databrickscfg"
    old = f"; mine\n[DEFAULT]\nhost  =  {DATABRICKS}\ntoken = dapi-old"
    file.write_text(old)
    with typed("https://ui.example") as terminal:  # there is nothing to ask about Databricks
        code, said = machine.run(CONFIGURE, *NEEDED[:2], stdin=terminal)
    assert code == 0, said
    assert "the profile DEFAULT is there, and is kept" in said
    assert file.read_text() == old
    options = (f"--databricks-host={DATABRICKS}", "--databricks-profile=eng", "--yes")
    code, said = machine.run(CONFIGURE, *NEEDED, *options, DATABRICKS_TOKEN="dapi-new")
    assert code == 0, said
    added = f"[eng]\nhost = {DATABRICKS}\ntoken = dapi-new\n"
    assert file.read_text() == f"{old}\n\n{added}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "dapi-new" not in said


def test_a_databricks_host_without_a_token_off_a_terminal_is_told(machine):
    code, said = machine.run(CONFIGURE, *NEEDED, f"--databricks-host={DATABRICKS}")
    assert (code, "DATABRICKS_TOKEN" in said) == (0, True)
    assert not (machine.home / ".databrickscfg").exists()
    code, said = machine.run(CONFIGURE, *NEEDED, "--databricks-host=http://db.example", "--yes")
    assert (code, "is not https://HOST" in said) == (2, True)


# activate_metaflow.sh

SNAPSHOT = {
    "bash": "declare -p; declare -F; set +o; shopt; trap; alias",
    "zsh": "typeset -p; typeset +f; setopt; trap; alias",
}
# What a shell changes by itself between two commands.
VOLATILE = re.compile(
    r"^(declare|typeset|export)[^=]* "
    r"(_|\?|!|status|RANDOM|SRANDOM|SECONDS|LINENO|EPOCH\w+|BASH\w*|PIPESTATUS|pipestatus|FUNCNAME"
    r"|TTYIDLE|HISTCMD|ZSH_EVAL_CONTEXT|zsh_eval_context|PPID)="
)


def snapshot(machine: Machine, name: str) -> str:
    """Returns the command that writes all that the shell has to a file."""
    return f"{{ {SNAPSHOT[Path(machine.shell).name]}; }} >{shlex.quote(str(machine.state / name))}"


def taken(machine: Machine, name: str) -> list[str]:
    lines = (machine.state / name).read_text(errors="replace").splitlines()
    return [line for line in lines if not VOLATILE.search(line)]


def source(machine: Machine, arguments: str = "''") -> str:
    return f"source {shlex.quote(machine.script(ACTIVATE))} {arguments}"


def make_venv(machine: Machine) -> Path:
    venv = machine.checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    return venv


def exported(machine: Machine, lines: str, **environ: str) -> dict[str, str]:
    """Returns the environment of a child of a shell that ran these lines under ``set -eu``."""
    child = (
        f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    said = machine.shell_says(f"set -eu\n{lines}\n{child}", **environ)
    return json.loads(said.splitlines()[-1])


def test_activating_exports_profile_user_pythonpath_and_the_venv(machine):
    venv = make_venv(machine)
    got = exported(machine, source(machine, "eng"), PYTHONHOME="/nowhere", PYTHONPATH="/mine")
    assert got["METAFLOW_PROFILE"] == "eng"
    assert got["METAFLOW_USER"] == "alice"
    assert got["PYTHONPATH"] == f"{machine.checkout}:/mine"
    assert got["VIRTUAL_ENV"] == str(venv)
    assert got["PATH"] == f"{venv}/bin:{machine.programs}"
    assert "AWS_PROFILE" not in got
    assert "PYTHONHOME" not in got


@pytest.mark.parametrize("flag", ["--aws-profile=team", "--aws-profile team"])
def test_the_aws_profile_is_set_only_where_it_is_named(machine, flag):
    assert exported(machine, source(machine, f"{flag} eng"))["AWS_PROFILE"] == "team"
    assert exported(machine, source(machine), AWS_PROFILE="mine")["AWS_PROFILE"] == "mine"


@pytest.mark.parametrize(
    ("environ", "user"),
    [
        ({}, "alice"),
        ({"METAFLOW_USER": "ci"}, "ci"),
        ({"USER": "root"}, None),
        ({"USER": "root", "SUDO_USER": "bob"}, "bob"),
        ({"USER": "root", "METAFLOW_USER": "root"}, None),
        ({"USER": ""}, None),
    ],
)
def test_the_user_is_never_root(machine, environ, user):
    assert exported(machine, source(machine), **environ).get("METAFLOW_USER") == user


BEFORE = {
    "all of it unset": "unset METAFLOW_PROFILE PYTHONPATH",
    "odd values": "export PYTHONPATH=$'a b:\\'q\"$x`y`\\nz' METAFLOW_PROFILE= AWS_PROFILE='*'",
    "not exported": "PYTHONPATH=/mine METAFLOW_USER=root VIRTUAL_ENV=/old METAFLOW_PROFILE='a b'",
    "another venv": "export VIRTUAL_ENV=/old VIRTUAL_ENV_PROMPT='(old)' PYTHONHOME=/h",
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("options", ["set +e", "set -eu -o pipefail -C -f"])
def test_deactivating_leaves_the_shell_as_it_was(machine, before, options):
    make_venv(machine)
    lines = [
        options,
        before,
        "trap : EXIT",
        snapshot(machine, "before").replace(" >", " >|"),
        source(machine, "--aws-profile team eng"),
        snapshot(machine, "during").replace(" >", " >|"),
        source(machine, "other"),
        "deactivate_metaflow",
        snapshot(machine, "after").replace(" >", " >|"),
    ]
    machine.shell_says("\n".join(lines))
    assert taken(machine, "during") != taken(machine, "before")
    assert taken(machine, "after") == taken(machine, "before")


def test_activating_changes_no_option_and_leaves_one_function_and_one_variable(machine):
    machine.shell_says(
        f"set -eu\n{snapshot(machine, 'before')}\n{source(machine)}\n{snapshot(machine, 'after')}"
    )
    new = set(taken(machine, "after")) - set(taken(machine, "before"))
    names = {re.sub(r"^(declare|typeset|export)( -\S+)* |=.*", "", each) for each in new}
    own = {each for each in names if not re.match(r"(METAFLOW_USER|PYTHONPATH)$", each)}
    logins = {"aws_data_login", "aws_eng_login", "aws_sso_login"}
    assert own == {"_adroit_restore", "deactivate_metaflow"} | logins


def test_activating_twice_is_activating_once(machine):
    make_venv(machine)
    once = exported(machine, source(machine, "eng"))
    assert exported(machine, f"{source(machine, 'eng')}\n{source(machine, 'eng')}") == once
    assert exported(machine, source(machine, "eng"), **once) == once


def test_it_is_found_from_any_directory_and_by_a_relative_path(machine):
    folder = shlex.quote(machine.checkout.name)
    for where, path in (("..", f"{folder}/bootstrap"), (f"../{folder}/bootstrap", ".")):
        got = exported(machine, f"cd {where}\nsource {path}/{ACTIVATE} ''\ncd /")
        assert got["PYTHONPATH"] == str(machine.checkout)


def test_inside_a_function_it_works_as_outside(machine):
    lines = f"f() {{ {source(machine, 'eng')}; }}; f; g() {{ deactivate_metaflow; }}"
    assert exported(machine, lines)["METAFLOW_PROFILE"] == "eng"
    assert "METAFLOW_PROFILE" not in exported(machine, lines + "; g")


@pytest.mark.parametrize("wrong", ["--no-such", "a b", "--aws-profile", "../up"])
def test_a_wrong_argument_returns_2_and_changes_nothing(machine, wrong):
    machine.shell_says(
        f"code=0; {snapshot(machine, 'before')}\n{source(machine, wrong)} || code=$?\n"
        f"test $code = 2; code=0; {snapshot(machine, 'after')}"
    )
    assert taken(machine, "after") == taken(machine, "before")


def test_a_profile_without_a_file_is_told_with_the_command_that_makes_it(machine):
    said = machine.shell_says(source(machine, "eng"))
    assert "bootstrap/configure_metaflow.sh --profile eng" in said
    machine.run(CONFIGURE, *NEEDED, "--profile=eng")
    assert "configure_metaflow" not in machine.shell_says(source(machine, "eng"))


LOGIN = """#!{python}
import sys
print("aws", *sys.argv[1:])
"""


def test_the_logins_of_the_guide_are_functions_until_it_is_deactivated(machine):
    machine.play("aws", LOGIN)
    typed_lines = "aws_data_login\naws_eng_login --no-browser\naws_sso_login\naws_sso_login team\n"
    said = machine.shell_says(f"set -eu\n{source(machine)} 2>/dev/null\n{typed_lines}")
    assert said.splitlines() == [
        "aws sso login --profile data",
        "aws sso login --profile eng --no-browser",
        "aws sso login --profile default",
        "aws sso login --profile team",
    ]
    activated = source(machine, "--aws-profile=ads")
    said = machine.shell_says(f"{activated} 2>/dev/null\naws_sso_login\ndeactivate_metaflow\n:")
    assert said == "aws sso login --profile ads\n"
    gone = f"{source(machine)}\ndeactivate_metaflow\ncommand -v aws_eng_login || echo gone"
    assert machine.shell_says(gone).splitlines()[-1] == "gone"


@pytest.mark.parametrize(
    "own", ["aws_eng_login() { echo mine; }", "alias aws_eng_login='echo mine'"]
)
def test_a_login_of_the_shells_own_stays(machine, own):
    expand = "" if Path(machine.shell).name == "zsh" else "shopt -s expand_aliases\n"
    lines = f"{expand}{own}\n{source(machine)}\neval aws_eng_login\ndeactivate_metaflow\n"
    said = machine.shell_says(f"{lines}eval aws_eng_login")
    assert said.splitlines()[-2:] == ["mine", "mine"]


def test_run_instead_of_sourced_it_says_so(machine):
    code, said = machine.run(ACTIVATE, "eng")
    assert (code, "source bootstrap/activate_metaflow.sh" in said) == (2, True)


# metaflow_port_forwarding.sh


class Forwarding:
    """The script, running.

    Attributes:
        process: The script itself.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._guard = threading.Timer(LIMIT_S, process.kill)
        self._guard.start()

    def line(self) -> str:
        """Waits for the next line; the guard ends a wait for one that does not come."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def lines(self, count: int) -> set[str]:
        """Waits for so many lines; which service comes first is chance."""
        return {self.line() for _ in range(count)}

    def ended(self) -> tuple[int, str]:
        """Waits for the end; returns the code and what was printed and not yet read."""
        printed, _ = self.process.communicate(timeout=LIMIT_S)
        self._guard.cancel()
        return self.process.returncode, printed


@contextmanager
def forwarding(machine: Machine, *arguments: str, prefix: tuple[str, ...] = (), **popen):
    process = subprocess.Popen(
        [*prefix, machine.shell, machine.script(FORWARD), *arguments],
        **{"stdin": subprocess.DEVNULL, "start_new_session": True} | popen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=machine.environ,
        cwd=machine.home,
    )
    running = Forwarding(process)
    try:
        yield running
    finally:
        process.terminate()
        running.ended()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody waited for yet does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # ended just now, or no Linux
    return state != "Z"


def all_gone(machine: Machine) -> bool:
    return not any(alive(pid) for call in machine.calls() for pid in call[:2] if pid)


def test_services_come_up_with_a_line_each_and_end_with_the_script(machine):
    first, second = free_ports(2)
    options = [
        "--context",
        "eng",
        "--namespace=flows",
        "--service",
        f"metaflow-service:{first}:8080",
    ]
    with forwarding(machine, *options, f"--service=deployment/ui:{second}:80") as running:
        assert running.lines(2) == {
            f"metaflow-service: up at http://127.0.0.1:{first}",
            f"deployment/ui: up at http://127.0.0.1:{second}",
        }
        common = ["--context=eng", "--namespace=flows", "port-forward", "--address=127.0.0.1"]
        assert sorted(call[2] for call in machine.calls()) == sorted(
            [
                [*common, "service/metaflow-service", f"{first}:8080"],
                [*common, "deployment/ui", f"{second}:80"],
            ]
        )
        assert all(alive(pid) for call in machine.calls() for pid in call[:2])
        running.process.terminate()
        assert running.ended() == (0, "")
    wait_until(lambda: all_gone(machine))


def test_the_defaults_are_metaflows_three_services(machine):
    (machine.state / "refuses").touch()
    ports = [8080, 8083, 3000]
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port}, one of the defaults, is in use on this machine")
    with forwarding(machine) as running:
        names = {running.line().partition(":")[0] for _ in ports}
    assert names == {"metaflow-service", "metaflow-ui", "metaflow-ui-static"}
    assert {f"{port}:{port}" for port in ports} == {call[2][-1] for call in machine.calls()}


@bash_alone
def test_one_that_ends_is_started_again_and_the_others_stay(machine):
    first, second = free_ports(2)
    with forwarding(machine, f"--service=a:{first}:80", f"--service=b:{second}:80") as running:
        running.lines(2)
        ((pid, child, _),) = [call for call in machine.calls() if "service/a" in call[2]]
        os.kill(pid, signal.SIGKILL)
        assert running.line() == "a: down, again in 1 s"
        assert running.line() == f"a: up at http://127.0.0.1:{first}"
        assert not alive(child)
        assert [call[2][-2] for call in machine.calls()].count("service/b") == 1
    wait_until(lambda: all_gone(machine))


@bash_alone
def test_waits_grow_to_the_cap_and_say_why(machine):
    (port,) = free_ports(1)
    (machine.state / "refuses").touch()
    with forwarding(machine, f"--service=a:{port}:80", "--max-wait=3") as running:
        started_s = time.monotonic()
        for wait_s in (1, 2, 3, 3):
            assert running.line() == f"a: down, again in {wait_s} s (error: services not found)"
        assert time.monotonic() - started_s > 3  # of six; the script counts in whole seconds
        (machine.state / "refuses").unlink()
        assert running.line() == f"a: up at http://127.0.0.1:{port}"


@bash_alone
def test_a_port_that_accepts_and_does_not_answer_is_not_up(machine):
    require(shutil.which("curl"), "curl is not installed (a Debian package)")
    (port,) = free_ports(1)
    (machine.state / "silent").touch()
    asked = machine.state / "asked"
    with forwarding(machine, f"--service=a:{port}:80") as running:
        wait_until(lambda: asked.exists() and asked.stat().st_size >= 3)
        (machine.state / "silent").unlink()
        at = asked.stat().st_size
        assert running.line() == f"a: up at http://127.0.0.1:{port}"
        (machine.state / "silent").touch()
        assert running.line() == "a: down, again in 1 s (it no longer answers)"
        assert asked.stat().st_size >= at + 2


@bash_alone
def test_without_curl_a_connection_is_enough(machine):
    (machine.programs / "curl").unlink(missing_ok=True)
    (port,) = free_ports(1)
    (machine.state / "silent").touch()
    with forwarding(machine, f"--service=a:{port}:80") as running:
        assert running.line() == f"a: up at http://127.0.0.1:{port}"


def test_once_ends_all_of_them_where_one_ends(machine):
    first, second = free_ports(2)
    options = [f"--service=a:{first}:80", f"--service=b:{second}:80", "--once"]
    with forwarding(machine, *options) as running:
        running.lines(2)
        ((pid, _, _),) = [call for call in machine.calls() if "service/a" in call[2]]
        os.kill(pid, signal.SIGTERM)
        assert running.ended() == (5, "a: down\n")
    wait_until(lambda: all_gone(machine))
    assert len(machine.calls()) == 2


@bash_alone
def test_a_child_that_ignores_term_is_killed(machine):
    (port,) = free_ports(1)
    (machine.state / "stubborn").touch()
    with forwarding(machine, f"--service=a:{port}:80") as running:
        running.line()
        running.process.send_signal(signal.SIGHUP)
        assert running.ended() == (0, "")
    wait_until(lambda: all_gone(machine))


def test_ctrl_c_at_a_terminal_ends_it_and_its_children(machine):
    (port,) = free_ports(1)
    take_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    master, slave = pty.openpty()
    prefix = (sys.executable, "-c", take_terminal)
    with forwarding(machine, f"--service=a:{port}:80", prefix=prefix, stdin=slave) as running:
        assert running.line() == f"a: up at http://127.0.0.1:{port}"
        os.write(master, b"\x03")
        assert running.ended()[0] == 0
    os.close(master)
    os.close(slave)
    assert machine.calls()
    wait_until(lambda: all_gone(machine))


def test_a_terminal_is_told_how_to_stop_it_and_at_the_end_what_it_reached(machine):
    (first,) = free_ports(1)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [machine.shell, machine.script(FORWARD), "--context=eng", f"--service=a:{first}:80"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=machine.environ,
        cwd=machine.home,
        start_new_session=True,
    )
    os.close(slave)
    printed = b""
    while b"up at" not in printed:
        printed += os.read(master, 4096)
    process.terminate()
    assert process.wait(LIMIT_S) == 0
    with suppress(OSError):  # Linux's word for the end of a terminal
        while data := os.read(master, 4096):
            printed += data
    os.close(master)
    lines = printed.decode().splitlines()
    assert lines[0] == "forwarding from eng, namespace its own; Ctrl-C stops it"
    assert lines[-1] == f"a: stopped; it was reached at http://127.0.0.1:{first}"


def test_a_port_in_use_is_told_before_anything_is_started(machine):
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken_by_us:
        port = taken_by_us.getsockname()[1]
        code, said = machine.run(FORWARD, f"--service=b:{free}:80", f"--service=a:{port}:80")
    assert code == 4
    assert f"a: port {port} is in use" in said
    assert machine.calls() == []


def test_without_kubectl_it_is_3(machine):
    (machine.programs / "kubectl").unlink()
    code, said = machine.run(FORWARD)
    assert (code, "kubectl is not installed" in said) == (3, True)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--service=a:1"],
        ["--service=a:0:80"],
        ["--service=a:80:65536"],
        ["--service", "--once"],
        ["--service=-a:80:80"],
        ["--service=a:80:80", "--service=b:80:81"],
        ["--max-wait=0"],
        ["--max-wait=soon"],
        ["--namespace"],
        ["--namespace="],
        ["stray"],
    ],
)
def test_bad_usage_is_2_and_a_line(machine, wrong):
    code, said = machine.run(FORWARD, *wrong)
    assert code == 2
    assert re.fullmatch(r"metaflow_port_forwarding\.sh: .+\n", said)
    assert machine.calls() == []


# All of them


def test_shellcheck_has_nothing_to_say():
    require(shutil.which("shellcheck"), "shellcheck is not installed (a Debian package)")
    scripts = sorted((ROOT / "bootstrap").glob("*.sh"))
    assert [each.name for each in scripts] == sorted([CONFIGURE, ACTIVATE, FORWARD])
    done = subprocess.run(
        ["shellcheck", "-s", "bash", *scripts], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", [CONFIGURE, FORWARD])
def test_help_is_the_head_of_the_script_and_names_every_option(machine, script):
    code, said = machine.run(script, "--help")
    assert code == 0
    text = (ROOT / "bootstrap" / script).read_text()
    labels = " ".join(re.findall(r"^ +(-[^)]*)\)", text, re.MULTILINE))  # of `case`
    flags = set(re.findall(r"--[a-z-]+", labels)) - {"--help"}
    assert len(flags) >= 5
    assert [flag for flag in flags if flag not in said] == []


def test_the_commands_of_the_guide_run(machine):
    text = (ROOT / "docs/bootstrap.md").read_text().replace("\\\n", " ")
    commands = re.findall(
        r"^    ((?:source )?bootstrap/.*|deactivate_metaflow)$", text, re.MULTILINE
    )
    forwards = [each for each in commands if FORWARD in each]
    others = [each for each in commands if FORWARD not in each]
    assert (len(forwards), len(others)) == (2, 6)
    machine.play("aws", AWS)
    machine.shell_says("\n".join(["set -e", f"cd {shlex.quote(str(machine.checkout))}", *others]))
    assert json.loads(machine.config("config_eng.json").read_text())
    (machine.programs / "kubectl").unlink()
    for command in forwards:
        argv = [machine.shell, machine.script(FORWARD), *shlex.split(command)[1:]]
        assert machine.finish(argv, subprocess.DEVNULL, {})[0] == 3  # past its options
