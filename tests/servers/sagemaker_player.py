"""SageMaker, played: it takes a training job's request as it was sent, and runs its container.

    with playing_sagemaker(moto, place) as player: ...

Requests come by HTTP, as boto3 sends them. Each is held against the limits in botocore's own model
of the API (lengths, patterns, ranges, which AWS enforces and neither boto3 nor moto does), and then
given to moto, which answers. What moto does not do is done here: the input channel is copied to
``/opt/ml/input/data``, the entrypoint is run with what a training container has and nothing else
(see ``_boxed``; or in a real container, where an engine is given), its output goes to CloudWatch
(moto's), and how it ended is what ``DescribeTrainingJob`` says from then on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.model import Shape

from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.requirements import require

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "123456789012"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
GRACE_S = 5.0  # SageMaker's own is 120: between SIGTERM and SIGKILL
Container = Callable[["PlayedJob"], list[str]]


@dataclass
class PlayedJob:
    """A job: its request as sent, where its /opt/ml is, and how it is doing."""

    request: dict[str, Any]
    ml: Path
    arn: str
    status: str = "InProgress"
    phase: str = "Starting"
    reason: str | None = None
    process: subprocess.Popen[bytes] | None = None
    stopped: str | None = None
    lines: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.request["TrainingJobName"])

    def environment(self, endpoint: str) -> dict[str, str]:
        """What a container has: the request's, SageMaker's own, and its role's credentials."""
        return {
            **self.request["Environment"],
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.arn,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,  # loopback stands in for AWS's names
        }


class Player:
    """The service.

    Attributes:
        jobs: By name, in the order they were asked for.
        broken: While it is set, requests are refused as too many.
        loses_answer: The next job is started, and its answer never comes.
        full: So many of the next jobs find no capacity.
    """

    def __init__(self, moto: S3Server, place: Path, container: Container | None) -> None:
        self.jobs: dict[str, PlayedJob] = {}
        self.broken = self.loses_answer = False
        self.full = 0
        self._moto, self._place = moto, place
        self._container = container or (lambda job: _boxed(job, moto.endpoint))
        self._threads: list[threading.Thread] = []
        session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        self._clients = {
            name: session.client(name, endpoint_url=moto.endpoint)
            for name in ("sagemaker", "s3", "logs")
        }
        self._shapes = self._clients["sagemaker"].meta.service_model
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        for job in self.jobs.values():
            self._end(job, "the test is over")
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()
        self._server.server_close()

    def created(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TrainingJobName"]
        if name in self.jobs:
            raise Refused("ResourceInUse", f"Training job {name} already exists")
        operation = self._shapes.operation_model("CreateTrainingJob")
        problems = list(beyond_limits(operation.input_shape, request, "request"))
        if problems:
            raise Refused("ValidationException", "; ".join(problems))
        arn = self._clients["sagemaker"].create_training_job(**request)["TrainingJobArn"]
        job = PlayedJob(request, self._place / name / "ml", arn)
        self.jobs[name] = job
        thread = threading.Thread(target=self._run, args=[job], daemon=True)
        self._threads.append(thread)
        thread.start()
        return {"TrainingJobArn": arn}

    def described(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        facts = {
            "TrainingJobName": job.name,
            "TrainingJobArn": job.arn,
            "TrainingJobStatus": job.status,
            "SecondaryStatus": job.phase,
            "StoppingCondition": job.request["StoppingCondition"],
            "Environment": job.request["Environment"],
            "CreationTime": 1,
            "ResourceConfig": job.request["ResourceConfig"],
            "EnableManagedSpotTraining": job.request.get("EnableManagedSpotTraining", False),
        }
        if job.status not in ("InProgress", "Stopping"):
            facts |= {"TrainingTimeInSeconds": 400, "BillableTimeInSeconds": 300}
        return facts | ({"FailureReason": job.reason} if job.reason else {})

    def stopping(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        if job.status != "InProgress":
            raise Refused("ValidationException", f"The job is {job.status}")
        self._end(job, "Stopped")
        return {}

    def _job(self, request: dict[str, Any]) -> PlayedJob:
        if request["TrainingJobName"] not in self.jobs:
            raise Refused("ValidationException", "Requested resource not found.")
        return self.jobs[request["TrainingJobName"]]

    def _end(self, job: PlayedJob, phase: str) -> None:
        if job.status != "InProgress" or job.stopped:
            return
        job.stopped, job.status = phase, "Stopping"
        while job.process is None and not job.ended.wait(0.05):
            pass
        if job.process is not None:
            _signal(job.process, signal.SIGTERM)
            timer = threading.Timer(GRACE_S, _signal, [job.process, signal.SIGKILL])
            timer.daemon = True
            timer.start()

    def _run(self, job: PlayedJob) -> None:
        try:
            if self.full:
                self.full -= 1
                job.reason = (
                    "CapacityError: Unable to provision requested ML compute capacity. Please "
                    "retry using a different ML instance type."
                )
                job.phase = job.status = "Failed"
                return
            job.phase = "Downloading"
            for channel in job.request["InputDataConfig"]:
                self._download(channel, job.ml / "input/data" / channel["ChannelName"])
            job.phase = "Training"
            job.process = subprocess.Popen(
                self._container(job),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            limit_s = job.request["StoppingCondition"]["MaxRuntimeInSeconds"]
            timer = threading.Timer(limit_s, self._end, [job, "MaxRuntimeExceeded"])
            timer.daemon = True
            timer.start()
            self._log(job)
            code = job.process.wait()
            timer.cancel()
            self._conclude(job, code)
        except Exception as error:  # noqa: BLE001 - a job that cannot run has failed
            job.reason, job.phase, job.status = (
                f"InternalServerError: {error!r}",
                "Failed",
                "Failed",
            )
        finally:
            job.ended.set()

    def _conclude(self, job: PlayedJob, code: int) -> None:
        if job.stopped:
            job.phase, job.status = job.stopped, "Stopped"
        elif code == 0:
            job.phase = job.status = "Completed"
        else:
            failure = job.ml / "output/failure"
            said = failure.read_text()[:1024] if failure.exists() else ""
            job.reason = f"AlgorithmError: {said}, exit code: {code}"
            job.phase = job.status = "Failed"

    def _download(self, channel: dict[str, Any], into: Path) -> None:
        place = urlsplit(channel["DataSource"]["S3DataSource"]["S3Uri"])
        prefix = place.path.lstrip("/")
        found = self._clients["s3"].list_objects_v2(Bucket=place.netloc, Prefix=prefix)
        for each in found["Contents"]:
            path = into / each["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._clients["s3"].download_file(place.netloc, each["Key"], str(path))

    def _log(self, job: PlayedJob) -> None:
        logs, stream = self._clients["logs"], f"{job.name}/algo-1-1"
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=LOG_GROUP)
        logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        assert job.process
        assert job.process.stdout
        for raw in job.process.stdout:
            line = raw.decode(errors="replace").rstrip("\n") or " "
            job.lines.append(line)
            event = {"timestamp": int(time.time() * 1000), "message": line}
            logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        verbs = {
            "SageMaker.CreateTrainingJob": self.created,
            "SageMaker.DescribeTrainingJob": self.described,
            "SageMaker.StopTrainingJob": self.stopping,
        }
        player = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    if player.broken:
                        raise Refused("ThrottlingException", "Rate exceeded")
                    status, answer = 200, verbs[self.headers["X-Amz-Target"]](body)
                    if player.loses_answer and "TrainingJobArn" in answer:
                        player.loses_answer, self.close_connection = False, True
                        return
                except Refused as no:
                    status, answer = 400, {"__type": no.code, "message": str(no)}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        return Handler


class Refused(Exception):
    """SageMaker says no."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def playing_sagemaker(
    moto: S3Server, place: Path, container: Container | None = None
) -> Iterator[Player]:
    """Plays SageMaker while the context lasts; no job is left."""
    player = Player(moto, place, container)
    try:
        yield player
    finally:
        player.close()


def beyond_limits(shape: Shape, value: Any, where: str) -> Iterator[str]:
    """Yields what of a request is beyond the limits in botocore's model."""
    limits = shape.metadata
    size = value if shape.type_name in ("integer", "long", "float", "double") else None
    if size is None and hasattr(value, "__len__"):
        size = len(value)
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{where}: {size} is not from {limits.get('min')} to {limits.get('max')}"
    pattern = limits.get("pattern", "")
    for theirs, ours in ((r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(theirs, ours)  # Java's classes of characters
    if isinstance(value, str) and pattern and not re.fullmatch(pattern, value):
        yield f"{where}: {value!r} does not match {pattern}"
    if isinstance(value, str) and shape.enum and value not in shape.enum:
        yield f"{where}: {value!r} is not one of {shape.enum}"
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"{where}: {name} is missing"
        for name, each in value.items():
            yield from beyond_limits(shape.members[name], each, f"{where}.{name}")
    elif shape.type_name == "list":
        for number, each in enumerate(value):
            yield from beyond_limits(shape.member, each, f"{where}[{number}]")
    elif shape.type_name == "map":
        for name, each in value.items():
            yield from beyond_limits(shape.key, name, f"{where} key {name}")
            yield from beyond_limits(shape.value, each, f"{where}.{name}")


def _boxed(job: PlayedJob, endpoint: str) -> list[str]:
    """Returns the command of a container without an engine: by bubblewrap, in a root of its own.

    No checkout, no home, no environment of the machine's; the interpreter and its packages stand in
    for the image. /opt/ml is the job's.
    """
    require(sys.platform == "linux", "bubblewrap, on Linux")
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    hidden = [Path("/root"), Path("/home"), Path("/tmp"), Path("/opt"), ROOT]
    command = ["bwrap", "--die-with-parent", "--unshare-pid", "--ro-bind", "/", "/"]
    command += ["--dev", "/dev", "--proc", "/proc"]
    for each in hidden:
        if each.is_dir():
            command += ["--tmpfs", str(each)]
    for each in sorted(prefixes):
        if any(each.is_relative_to(parent) for parent in hidden):
            command += ["--ro-bind", str(each), str(each)]
    command += ["--bind", str(job.ml), "/opt/ml", "--chdir", "/", "--clearenv"]
    place = {"PATH": f"{Path(sys.prefix).resolve()}/bin:/usr/bin:/bin", "HOME": "/opt/ml/home"}
    for name, value in (place | job.environment(endpoint)).items():
        command += ["--setenv", name, value]
    return [*command, *job.request["AlgorithmSpecification"]["ContainerEntrypoint"]]


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signals the container's first process; the box itself for SIGKILL."""
    try:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in _inside(children) or [process.pid]:
            os.kill(pid, number)
    except (ProcessLookupError, FileNotFoundError):
        pass


def _inside(children: list[str]) -> list[int]:
    """Returns the entrypoint's process below bubblewrap's own."""
    for child in children:
        below = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        return [int(each) for each in below] or [int(child)]
    return []


def environment(player: Player, moto: S3Server, home: Path) -> Mapping[str, str]:
    """Returns the environment of a laptop whose AWS this is."""
    return {
        "HOME": str(home),
        "AWS_ENDPOINT_URL": moto.endpoint,
        "AWS_ENDPOINT_URL_SAGEMAKER": player.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "METAFLOW_S3_ENDPOINT_URL": moto.endpoint,
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{moto.new_place()}",
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_SAGEMAKER_IAM_ROLE": f"arn:aws:iam::{ACCOUNT}:role/training",
        "METAFLOW_SAGEMAKER_IMAGE": f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/training:1",
    }
