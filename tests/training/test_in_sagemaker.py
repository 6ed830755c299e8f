"""``@in_sagemaker``: flows whose steps are training jobs, with SageMaker played (see the player).

The flow runs as a command in an empty home; each job's entrypoint in a box of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.servers.docker_engine import docker_engine
from tests.servers.object_servers import S3Server, running_moto
from tests.servers.sagemaker_player import ROOT, PlayedJob, Player, environment, playing_sagemaker
from tests.support.checkouts import clone_as_it_is
from tests.support.env_images import ENV, training_tar
from tests.support.requirements import require

sys.path.insert(0, str(ROOT))  # Metaflow looks for its extensions when it is first imported
import metaflow  # noqa: F401 - before the extension, which it imports itself

FLOW = ROOT / "tests/samples/remote_flow.py"
PATIENCE_S = 120


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with running_moto() as server:
        yield server


@pytest.fixture
def player(moto: S3Server, tmp_path: Path) -> Iterator[Player]:
    require(shutil.which("bwrap"), "bubblewrap is not installed (a Debian package)")
    with playing_sagemaker(moto, tmp_path / "jobs") as played:
        yield played


class Laptop:
    """Where flows are started: a home with nothing in it."""

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self.home = home
        home.mkdir()
        self.environ = os.environ | environ | {"PYTHONPATH": str(ROOT)}

    def command(self, *arguments: str, flow: Path = FLOW) -> list[str]:
        return [sys.executable, str(flow), *arguments]

    def run(self, *arguments: str, flow: Path = FLOW, **environ: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*arguments, flow=flow),
            cwd=self.home, env=self.environ | environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def client(self, code: str) -> Any:
        """Returns what an expression says of the latest run, ``run``, by Metaflow's client."""
        program = (
            "import json, metaflow; metaflow.namespace(None);"
            f"run = metaflow.Flow('RemoteFlow').latest_run; print(json.dumps({code}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.home, env=self.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def laptop(moto: S3Server, player: Player, tmp_path: Path) -> Laptop:
    return Laptop(environment(player, moto, tmp_path / "home"), tmp_path / "home")


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def only_job(player: Player) -> PlayedJob:
    [job] = player.jobs.values()
    return job


@dataclass(frozen=True)
class Finished:
    """A run that went well, with two jobs, and an answer of SageMaker's that never came."""

    laptop: Laptop
    player: Player
    output: str


@pytest.fixture(scope="module")
def finished(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    require(shutil.which("bwrap"), "bubblewrap is not installed (a Debian package)")
    place = tmp_path_factory.mktemp("finished")
    with playing_sagemaker(moto, place / "jobs") as played:
        played.loses_answer = True
        laptop = Laptop(environment(played, moto, place / "home"), place / "home")
        code, output = laptop.run("run", "--needed", "--parts", "2")
        assert code == 0, output
        yield Finished(laptop, played, output)


def test_what_a_job_sets_is_there_in_the_next_step(finished: Finished) -> None:
    laptop, player, output = finished.laptop, finished.player, finished.output
    assert laptop.client("run.data.all") == [40, 42]
    there = laptop.client("run.data.there")
    assert there["job"] in player.jobs
    assert there["cwd"].startswith("/opt/ml/")
    assert not {"PYTHONHOME", "AWS_PROFILE", "ADROIT_CONFIG"} & set(there["environment"])
    # The log: in the terminal as it came, and once where Metaflow keeps it.
    assert 'training 20 it\'s $HOME "quoted"' in output
    assert "[MFLOG" not in output
    assert "[save_logs]" not in output
    logged = laptop.client("[task.stdout for task in run['train']]")
    assert [text.count("training ") for text in logged] == [1, 1]
    noted = laptop.client("[t.metadata_dict['sagemaker-training-job'] for t in run['train']]")
    assert set(noted) == set(player.jobs)
    for name in player.jobs:
        assert f"FlogStreamNameFilter$3D{name}" in output


def test_a_job_whose_answer_was_lost_is_the_same_job(finished: Finished) -> None:
    assert not finished.player.loses_answer
    assert len(finished.player.jobs) == 2
    assert {job.status for job in finished.player.jobs.values()} == {"Completed"}


def test_a_request_says_what_was_asked_for_and_no_more(finished: Finished) -> None:
    for job in finished.player.jobs.values():
        request = job.request  # held against botocore's limits when it came
        assert request["ResourceConfig"] == {
            "InstanceType": "ml.m5.xlarge",
            "InstanceCount": 1,
            "VolumeSizeInGB": 30,
        }
        assert request["Tags"] == [{"Key": "team", "Value": "ads"}]
        assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
        entrypoint = request["AlgorithmSpecification"]["ContainerEntrypoint"]
        assert entrypoint == ["bash", "/opt/ml/input/data/metaflow/run.sh"]
        assert set(request["Environment"]) == {"METAFLOW_SAGEMAKER_TASK", "AWS_DEFAULT_REGION"}
        script = (job.ml / "input/data/metaflow/run.sh").read_text()
        assert "METAFLOW_DATASTORE_SYSROOT_S3" in script
        assert "secret" not in script.lower()
        assert str(finished.laptop.home) not in script


def test_a_step_that_fails_says_why_and_a_retry_is_a_job_of_its_own(
    laptop: Laptop, player: Player
) -> None:
    retry = ("--with", "retry:times=1,minutes_between_retries=0")
    code, output = laptop.run(*retry, "run", "--mode", "fail once")
    assert code == 0, output
    first, second = player.jobs.values()
    assert (first.status, second.status) == ("Failed", "Completed")
    assert "The loss is not a number." in str(first.reason)
    told = output[output.index(f"{first.name} failed.") : output.index(second.name)]
    assert "TrainingError: The loss is not a number." in told
    assert f"#/jobs/{first.name}" in told
    assert "log-groups" in told
    assert laptop.client("run.data.there")["attempt"] == 1


def test_a_timeout_is_the_steps_own(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run("--with", "timeout:seconds=5", "run", "--mode", "hang")
    assert code == 1
    assert "timed out after" in output
    job = only_job(player)
    assert job.status == "Failed"  # by @timeout inside, not by SageMaker
    assert job.request["StoppingCondition"]["MaxRuntimeInSeconds"] == 600


def test_a_job_that_takes_too_long_says_what_to_change(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run("run", "--mode", "hang", MAX_RUN="6")
    assert code == 1
    assert only_job(player).phase == "MaxRuntimeExceeded"
    assert "ran out of time" in output
    assert "MaxRuntimeInSeconds 6 s" in output
    assert "@in_sagemaker(max_run=...)" in output


def test_who_stops_a_job_does_not_get_another_one(laptop: Laptop, player: Player) -> None:
    retry = ("--with", "retry:times=2,minutes_between_retries=0")
    process = started(laptop, *retry, "run", "--mode", "hang")
    until(lambda: player.jobs and "hanging" in only_job(player).lines)
    player.stopping({"TrainingJobName": only_job(player).name})
    output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode != 0
    assert "was stopped" in output
    assert only_job(player).status == "Stopped"


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGKILL"])
def test_a_command_that_ends_takes_its_job_with_it(
    laptop: Laptop, player: Player, how: str
) -> None:
    process = started(laptop, "run", "--mode", "hang")
    until(lambda: player.jobs and "hanging" in only_job(player).lines)
    os.killpg(process.pid, signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    until(lambda: only_job(player).status == "Stopped")
    assert only_job(player).ended.wait(PATIENCE_S)


def test_resume_takes_a_finished_job_as_it_is(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run("run", "--needed", FAIL_END="yes")
    assert code == 1, output
    code, output = laptop.run("resume")
    assert code == 0, output
    assert "made [40]" in output
    assert len(player.jobs) == 1


def test_a_job_that_is_not_waited_for_goes_on_alone(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run("run", WAIT="no")
    assert code == 0, output
    job = only_job(player)
    assert f"Handed over to training job {job.name}" in output
    with pytest.raises(subprocess.CalledProcessError) as error:
        laptop.client("run['train'].task.data.doubled + 1")  # as a later step that needs it
    assert f"self.doubled is made by training job {job.name}" in error.value.stderr
    assert "wait=True" in error.value.stderr
    assert "-sagemaker').data.doubled" in error.value.stderr
    code, output = laptop.run("sagemaker", "follow", job.name)
    assert code == 0, output
    assert "training 20" in output
    task = output.rsplit("metaflow.Task('", 1)[1].split("'")[0]
    assert laptop.client(f"metaflow.Task({task!r}).data.doubled") == 40


def test_a_step_can_run_here_instead(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run(
        "--datastore=local", "run", "--needed", MF_IGNORE_SAGEMAKER="true",
        METAFLOW_SAGEMAKER_IAM_ROLE="",
    )  # fmt: skip
    assert code == 0, output
    assert "made [40]" in output
    assert not player.jobs


def test_any_step_can_be_sent_from_the_command_line(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    flow = tmp_path / "plain_flow.py"
    flow.write_text(PLAIN_FLOW)
    spec = "in_sagemaker:instance_type=ml.g5.xlarge,spot=true,max_run=300"
    code, output = laptop.run("--with", spec, "run", flow=flow)
    assert code == 0, output
    assert "1 + 1 = 2" in output
    first, second = player.jobs.values()
    assert first.request["EnableManagedSpotTraining"]
    assert first.request["StoppingCondition"]["MaxWaitTimeInSeconds"] == 3900
    assert second.request["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"


PLAIN_FLOW = """
from metaflow import FlowSpec, step
class PlainFlow(FlowSpec):
    @step
    def start(self):
        self.one = 1
        self.next(self.end)
    @step
    def end(self):
        print(f"1 + 1 = {self.one + 1}")
if __name__ == "__main__":
    PlainFlow()
"""


def test_what_cannot_run_is_told_before_a_task_starts(laptop: Laptop, player: Player) -> None:
    code, output = laptop.run(
        "--datastore=local", "run", METAFLOW_SAGEMAKER_IAM_ROLE="", METAFLOW_SAGEMAKER_IMAGE="",
        MAX_RUN="0",
    )  # fmt: skip
    assert code == 1
    for said in ("image is not set", "role is not set", "max_run has to be", "datastore is local"):
        assert said in output
    assert "MF_IGNORE_SAGEMAKER=true" in output
    assert "Task is starting" not in output
    assert laptop.run("--datastore=local", "show")[0] == 0  # other commands do not mind


@pytest.mark.parametrize("role", ["me", "arn:aws:iam::nobody:role/training"])
def test_a_request_that_is_refused_is_not_sent_again(
    laptop: Laptop, player: Player, role: str
) -> None:
    retry = ("--with", "retry:times=2,minutes_between_retries=0")
    code, output = laptop.run(*retry, "run", METAFLOW_SAGEMAKER_IAM_ROLE=role)
    assert code != 0
    assert output.count("SageMaker did not start") == 1
    assert "RoleArn" in output
    assert not player.jobs


OPTIONS_FLOW = """
import os
from pathlib import Path
from metaflow import FlowSpec, environment, in_sagemaker, resources, step
class OptionsFlow(FlowSpec):
    {decorators}
    @step
    def start(self):
        self.seen = {{
            "environment": os.environ.get("MY_OWN"),
            "command": os.environ.get("FROM_COMMAND"),
            "made": Path("prepared.txt").exists(),
            "files": sorted(str(p) for p in Path("data").rglob("*") if p.is_file()),
            "ranks": os.environ.get("WORLD_SIZE"),
        }}
        self.next(self.end)
    @step
    def end(self):
        print("seen", self.seen)
if __name__ == "__main__":
    OptionsFlow()
"""


def options_flow(place: Path, decorators: str) -> Path:
    (place / "data/deep").mkdir(parents=True)
    for name in ("rows.csv", "rows.tmp", "deep/more.json", ".env"):
        (place / "data" / name).write_text("x")
    flow = place / "options_flow.py"
    flow.write_text(OPTIONS_FLOW.format(decorators=decorators))
    return flow


def test_a_job_is_asked_for_with_all_that_was_said(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    key = f"arn:aws:kms:us-east-1:{'1' * 12}:key/1"
    flow = options_flow(
        tmp_path / "project",
        f"""@resources(cpu=8, memory=30000)
    @in_sagemaker(
        keep_alive_period_in_seconds=600, environment_variables={{"MY_OWN": "it's $HOME"}},
        pre_execution_commands=["export FROM_COMMAND=yes # kept", "touch prepared.txt"],
        include=["data"], exclude=["data/*.tmp"], volume_kms_key="{key}", s3_kms_key="{key}",
        encrypt_inter_container_traffic=True, job_name_prefix="ads-team", max_retry_attempts=2,
        tags={{"team": "ads"}},
    )""",
    )
    administered = tmp_path / "sagemaker.toml"
    administered.write_text(
        'subnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\nvolume_size = 50\n'
        'tags = {team = "all", cost-center = "7"}\n[usd_per_hour]\n"ml.m5.2xlarge" = 1.2\n'
    )
    player.full = 1
    code, output = laptop.run(
        "run", flow=flow, METAFLOW_SAGEMAKER_DEFAULTS=str(administered),
        METAFLOW_SAGEMAKER_CAPACITY_WAIT_S="0.1",
    )  # fmt: skip
    assert code == 0, output
    first, job = player.jobs.values()
    assert "Trying again in 0.1 s." in output
    assert (first.status, job.status) == ("Failed", "Completed")
    assert all(name.startswith("ads-team-") for name in player.jobs)
    assert job.request["ResourceConfig"] == {
        "InstanceType": "ml.m5.2xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 50,
        "KeepAlivePeriodInSeconds": 600,
        "VolumeKmsKeyId": key,
    }
    assert job.request["OutputDataConfig"]["KmsKeyId"] == key
    assert job.request["EnableInterContainerTrafficEncryption"] is True
    assert job.request["RetryStrategy"] == {"MaximumRetryAttempts": 2}
    assert job.request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    tags = {tag["Key"]: tag["Value"] for tag in job.request["Tags"]}
    assert tags == {"team": "ads", "cost-center": "7"}
    assert str({
        "environment": "it's $HOME", "command": "yes", "made": True,
        "files": ["data/deep/more.json", "data/rows.csv"], "ranks": None,
    }) in output  # fmt: skip
    told = [line for line in output.splitlines() if job.name in line]
    assert told[-1].endswith("billed 300 s of ml.m5.2xlarge, about 0.1000 USD")


def test_capacity_that_is_not_there_is_given_up(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    flow = options_flow(tmp_path / "project", "@in_sagemaker(max_retry_attempts=1)")
    player.full = 9
    code, output = laptop.run("run", flow=flow, METAFLOW_SAGEMAKER_CAPACITY_WAIT_S="0.1")
    assert code == 1
    assert len(player.jobs) == 2
    assert "SageMaker has no capacity" in output
    assert "CapacityError" in output


def test_a_command_that_fails_before_the_step_ends_the_job(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    command = "echo no such package >&2; false"
    flow = options_flow(
        tmp_path / "project", f"@in_sagemaker(pre_execution_commands=[{command!r}, 'touch no'])"
    )
    code, _ = laptop.run("run", flow=flow)
    assert code == 1
    assert "no such package" in str(only_job(player).reason)
    assert "seen" not in "".join(only_job(player).lines)


def test_what_contradicts_itself_is_told_before_a_task_starts(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    flow = options_flow(
        tmp_path / "project",
        """@environment(vars={"MY_SERVER": "http://localhost:1"})
    @resources(gpu=1, memory=1000)
    @in_sagemaker(
        instance_type="ml.m5.large", spot=True, keep_alive_period_in_seconds=60, instance_count=2,
        environment_variables={"not a name": "1"}, job_name_prefix="no_underscores",
        pre_execution_commands="ls", max_retry_attempts=31,
    )""",
    )
    code, output = laptop.run("run", flow=flow, MLFLOW_TRACKING_URI="http://127.0.0.1:5000")
    assert code == 1
    for said in (
        "keep_alive_period_in_seconds cannot be with spot",
        "instance_count above 1 needs use_torchrun=True",
        "environment_variables: 'not a name'",
        "job_name_prefix has at most 30 letters",
        "pre_execution_commands is a list",
        "max_retry_attempts has to be a whole number from 0 to 30",
        "ml.m5.large has less than @resources(cpu=1, memory=1000, gpu=1) asks for; ml.g4dn.xlarge",
        "MLFLOW_TRACKING_URI is http://127.0.0.1:5000, which is this machine",
        "MY_SERVER is http://localhost:1, which is this machine",
    ):
        assert said in output
    assert "Task is starting" not in output
    assert not player.jobs


@pytest.mark.parametrize("include", ["nowhere", "../else", "/etc/hosts"])
def test_files_that_are_not_beside_the_flow_are_told(tmp_path: Path, include: str) -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.errors import SagemakerError
    from metaflow_extensions.adroit.plugins.sagemaker.shipped import included_files

    (tmp_path / "else").touch()
    flow = options_flow(tmp_path / "project", "@in_sagemaker()")
    with pytest.raises(SagemakerError, match="names no file below the flow's directory"):
        list(included_files(flow, [include], []))


def test_a_metadata_service_of_this_machine_is_told_before_a_job(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    flow = options_flow(tmp_path / "project", "@in_sagemaker()")
    with answering_anything() as service:
        code, output = laptop.run(
            "run", flow=flow, METAFLOW_DEFAULT_METADATA="service", METAFLOW_SERVICE_URL=service
        )
    assert code == 1
    assert f"METAFLOW_SERVICE_INTERNAL_URL is {service}, which is this machine" in output
    assert "--service-internal-url" in output
    assert not player.jobs


@contextmanager
def answering_anything() -> Iterator[str]:
    """A metadata service as far as starting a run asks it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps({"run_number": 1, "task_id": 1, "version": "2.4.0"}).encode()
            self.send_response(200)
            self.send_header("METADATA_SERVICE_VERSION", "2.4.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_step_runs_in_several_processes_and_the_first_is_the_task(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: no CPU build is in the lock")
    flow = options_flow(tmp_path / "project", "@in_sagemaker(use_torchrun=True, nproc_per_node=2)")
    code, output = laptop.run("run", flow=flow)
    assert code == 0, output + "\n".join(only_job(player).lines)
    assert "'ranks': '2'" in output


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:5000", True),
        ("https://localhost", True),
        ("http://LOCALHOST:1/a", True),
        ("http://[::1]:5000", True),
        ("http://127.9.9.9", True),
        ("http://0.0.0.0:80", True),
        ("http://a.localhost", True),
        ("http://localhost.example.com", False),
        ("https://mlflow.example", False),
        ("databricks", False),
        ("sqlite:///127.0.0.1", False),
        ("http://10.0.0.1", False),
    ],
)
def test_addresses_of_this_machine_are_known(address: str, here: bool) -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.reach import is_this_machine

    assert is_this_machine(address) == here


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("a = ", "Invalid"), ("colour = 1", "has no colour")],
)
def test_an_administrators_file_that_cannot_be_used_is_told(
    tmp_path: Path, text: str | None, said: str
) -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.administered import defaults_in
    from metaflow_extensions.adroit.plugins.sagemaker.errors import SagemakerError

    file = tmp_path / "sagemaker.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SagemakerError, match=said):
        defaults_in(str(file), ["image"])


def test_the_cheapest_instance_that_is_enough_is_chosen() -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.instances import Needs, cheapest, cost_line

    assert cheapest(Needs(1, 4096, 0)) == "ml.m5.large"
    assert cheapest(Needs(4, 32_000, 0)) == "ml.r5.xlarge"
    assert cheapest(Needs(1, 4096, 4)) == "ml.g4dn.12xlarge"
    assert cheapest(Needs(1000, 1, 0)) is None
    assert cost_line("ml.new.large", 1, 60, {}) == "billed 60 s of ml.new.large"
    assert cost_line("ml.m5.large", 2, 3600, {}).endswith(
        "3600 s x 2 of ml.m5.large, about 0.2300 USD"
    )


def test_ranks_are_tasks_of_their_own() -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.ranks import arguments_of

    words = ["flow.py", "step", "train", "--task-id", "7", "--run-id", "1"]
    assert arguments_of(0, words) == words
    assert arguments_of(3, words)[4] == "7-rank-3"


def test_a_job_that_nobody_knows_cannot_be_followed(laptop: Laptop) -> None:
    code, output = laptop.run("sagemaker", "follow", "somebody-elses")
    assert code == 1
    assert "somebody-elses is no training job that @in_sagemaker started" in output
    assert "Traceback" not in output


def test_argo_is_refused(laptop: Laptop) -> None:
    code, output = laptop.run("argo-workflows", "create", "--only-json")
    assert code == 1
    assert "take @in_sagemaker off step train" in output


def test_a_job_out_of_sight_is_waited_for(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metaflow_extensions.adroit.plugins.sagemaker import job as jobs

    for name, value in finished.laptop.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jobs, "PATIENCE_S", 110.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    player, name = finished.player, next(iter(finished.player.jobs))
    said: list[str] = []
    slept: list[float] = []
    player.broken = True

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        player.broken = len(slept) < 3

    jobs.Job(name).follow(lambda line, _: said.append(line), sleep)
    assert sum("cannot be seen, asking again" in line for line in said) == 1
    assert sum("training 2" in line for line in said) == 1
    player.broken = True
    slept.clear()
    with pytest.raises(jobs.JobUnseen, match="could not be seen for 2 minutes"):
        jobs.Job(name).follow(lambda *_: None, slept.append)
    assert sum(slept) == 120
    player.broken = False


def test_a_job_runs_in_a_real_container(moto: S3Server, tmp_path: Path) -> None:
    with docker_engine() as engine:
        image = "training:1"
        docker = ["docker", "--host", engine.host]
        with training_tar().open("rb") as tar:
            path = f"--change=ENV PATH={ENV}/bin:/usr/bin:/bin"
            subprocess.run([*docker, "import", path, "-", image], stdin=tar, check=True)

        def container(job: PlayedJob) -> list[str]:
            entrypoint, *arguments = job.request["AlgorithmSpecification"]["ContainerEntrypoint"]
            place = job.environment(moto.endpoint).items()
            options = [f"--env={name}={value}" for name, value in place]
            options += ["--rm", "--network=host", f"--volume={job.ml}:/opt/ml"]
            options += [f"--entrypoint={entrypoint}"]
            given = job.request["AlgorithmSpecification"]["TrainingImage"]
            return [*docker, "run", *options, given, *arguments]

        with playing_sagemaker(moto, tmp_path / "jobs", container) as player:
            laptop = Laptop(environment(player, moto, tmp_path / "home"), tmp_path / "home")
            code, output = laptop.run("run", "--needed", METAFLOW_SAGEMAKER_IMAGE=image)
            assert code == 0, output + "\n".join(only_job(player).lines)
            assert "made [40]" in output


def test_the_example_is_trained_in_a_job_published_and_leads_back_to_it(
    laptop: Laptop, player: Player, tmp_path: Path
) -> None:
    """By the command of docs/sagemaker.md, in a clone."""
    guide = (ROOT / "docs/sagemaker.md").read_text()
    command = next(line.strip() for line in guide.splitlines() if line.startswith("    python "))
    root = clone_as_it_is(tmp_path / "clone")
    laptop.home, laptop.environ["PYTHONPATH"] = root, ""
    place = {"ADROIT_TARGET": "local", "METAFLOW_UI_URL": "https://metaflow.example/ui"}
    place["METAFLOW_DEFAULT_DATASTORE"] = "local"  # of the publish flow; the command names its own
    flow, *arguments = shlex.split(command)[1:]
    code, output = laptop.run(*arguments, flow=root / flow, **place)
    assert code == 0, output
    job = only_job(player)
    version = parse_flavors((root / "flavors.yaml").read_bytes())["example_sagemaker"].version
    shown = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "show", str(version)],
        cwd=root, env=laptop.environ | place, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"#/jobs/{job.name}" in shown
    assert "https://metaflow.example/ui/ExampleSagemaker/" in shown
    assert "https://metaflow.example/ui/PublishMlflowModelFlow/" in shown


@pytest.mark.parametrize("task", ["2", "t_a-7b0d7f3a-long-of-its-own", "2-sagemaker"])
def test_a_jobs_name_is_its_own_and_short_enough(task: str) -> None:
    from metaflow_extensions.adroit.plugins.sagemaker.request import job_name

    long = ("AFlowWithAVeryLongNameThatGoesOnAndOnAndOn_" * 3, "123", "train_it")
    names = {job_name(*long, task, attempt, root) for attempt in (0, 1) for root in ("s3://a", "b")}
    assert len(names) == 4
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() for name in names)
    assert not any("--" in name for name in names)


def started(laptop: Laptop, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        laptop.command(*arguments),
        cwd=laptop.home, env=laptop.environ, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
