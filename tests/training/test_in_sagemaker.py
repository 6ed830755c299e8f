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
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
