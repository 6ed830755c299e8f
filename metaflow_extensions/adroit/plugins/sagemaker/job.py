"""A training job at AWS: started, followed to its end, stopped; its log as it is written.

Region, credentials and endpoints are boto3's usual ones. A laptop that sleeps, a VPN that drops or
credentials that run out do not end a job of hours: asking goes on for ``PATIENCE_S``, with a client
made anew each time, so that a new login is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .errors import JobFailed, JobStopped, JobUnseen, NoCapacity, SagemakerError
from .instances import cost_line

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
FIRST_POLL_S = 0.5
LAST_POLL_S = 10.0
LOG_LAG_S = 2.0
"""How long CloudWatch may take to have the last line of a job that has ended."""
PATIENCE_S = 3600.0
_REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "ValidationException",
    "UnrecognizedClientException",
}
_NO_CAPACITY = {"ResourceLimitExceeded", "CapacityError"}

Echo = Callable[[str, datetime | None], None]


class Job:
    """A training job by its name.

    Args:
        name: As in the request.
    """

    def __init__(self, name: str) -> None:
        import boto3

        self.name = name
        self._session = boto3.Session()
        self._read: dict[str, str] = {}  # by log stream, where to go on
        self._renew()

    @property
    def region(self) -> str:
        """The region it runs in."""
        return str(self._sagemaker.meta.region_name)

    @property
    def url(self) -> str:
        """The job's page in the AWS console."""
        return f"{self._console('sagemaker')}#/jobs/{self.name}"

    @property
    def log_url(self) -> str:
        """The page of the job's log in the AWS console."""
        group = LOG_GROUP.replace("/", "$252F")
        return (
            f"{self._console('cloudwatch')}#logsV2:log-groups/log-group/{group}"
            f"$3FlogStreamNameFilter$3D{self.name}"
        )

    def start(self, request: Mapping[str, Any]) -> None:
        """Starts the job; one of this name is this one, started by a request whose answer was lost.

        Raises:
            SagemakerError: SageMaker refuses the request, now and next time.
            NoCapacity: There is no such instance for us just now, or a quota is used up.
            JobFailed: It could not be started just now.
            JobUnseen: AWS cannot be reached, or has failed.
        """
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        try:
            self._sagemaker.create_training_job(**request)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "ResourceInUse":
                return
            kind = SagemakerError if code in _REFUSED else JobFailed
            if code in _NO_CAPACITY:
                kind = NoCapacity
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
                kind = JobUnseen  # it may have been started all the same
            said = error.response.get("Error", {}).get("Message", "")
            raise kind(f"SageMaker did not start {self.name}: {code}: {said}") from None
        except ParamValidationError as error:
            raise SagemakerError(f"SageMaker did not start {self.name}: {error}") from None
        except BotoCoreError as error:
            raise JobUnseen(f"SageMaker could not be asked for {self.name}: {error}") from None

    def describe(self) -> dict[str, Any]:
        """Returns what SageMaker says of it; raises what boto3 does."""
        return dict(self._sagemaker.describe_training_job(TrainingJobName=self.name))

    def stop(self) -> None:
        """Has it stopped; a job that has ended already is left as it is."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._sagemaker.stop_training_job(TrainingJobName=self.name)
        except (BotoCoreError, ClientError):
            return  # its guard tries again

    def follow(
        self,
        echo: Echo,
        sleep: Callable[[float], None] = time.sleep,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        """Prints its log until it has ended, and last what it cost.

        Args:
            echo: Is given each line; with the time it was logged, or None for a word of our own.
            sleep: Waits, in seconds.
            prices: USD an hour by instance type that come before the list's.

        Raises:
            JobFailed: It failed or ran out of time; the message has its reason and the log's place.
            JobStopped: Somebody stopped it.
            JobUnseen: AWS cannot be reached.
        """
        poll_s, phase = FIRST_POLL_S, ""
        while True:
            facts = self._patiently(self.describe, echo, sleep)
            status, now = facts["TrainingJobStatus"], facts.get("SecondaryStatus", "")
            if now != phase:
                phase = now
                echo(f"{self.name}: {_told(facts)}", None)
            self._echo_log(echo, sleep)
            if status not in ("InProgress", "Stopping"):
                break
            sleep(poll_s)
            poll_s = min(poll_s * 1.3, LAST_POLL_S)
        sleep(LOG_LAG_S)
        self._echo_log(echo, sleep)
        if "BillableTimeInSeconds" in facts:
            resources, billed_s = facts["ResourceConfig"], facts["BillableTimeInSeconds"]
            cost = cost_line(
                resources["InstanceType"], resources["InstanceCount"], billed_s, prices or {}
            )
            echo(f"{self.name}: {cost}{_spot_savings(facts)}", None)
        if status != "Completed":
            raise self._ended(facts)

    def _ended(self, facts: Mapping[str, Any]) -> JobFailed | JobStopped:
        reason = facts.get("FailureReason") or facts.get("SecondaryStatus") or "no reason given"
        where = f"  job:    {self.url}\n  log:    {self.log_url}"
        if facts["TrainingJobStatus"] == "Failed":
            kind = NoCapacity if str(reason).startswith("CapacityError") else JobFailed
            return kind(f"{self.name} failed.\n  reason: {reason}\n{where}")
        if facts.get("SecondaryStatus") in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
            limit = facts.get("StoppingCondition", {})
            seconds = ", ".join(f"{name} {value} s" for name, value in limit.items())
            return JobFailed(
                f"{self.name} ran out of time.\n"
                f"  reason: {facts['SecondaryStatus']}; the limit was {seconds}\n{where}\n"
                "  next:   give it more: @in_sagemaker(max_run=...), in seconds"
            )
        return JobStopped(f"{self.name} was stopped.\n  reason: {reason}\n{where}")

    def _echo_log(self, echo: Echo, sleep: Callable[[float], None]) -> None:
        lines: list[tuple[datetime, str]] = []  # what was read before AWS went away is kept
        self._patiently(lambda: self._read_log(lines), echo, sleep)
        for moment, line in lines:
            echo(line, moment)

    def _read_log(self, lines: list[tuple[datetime, str]]) -> None:
        """Appends what was logged since the last time, oldest first within each stream."""
        for stream in self._streams():
            while True:
                token = {"nextToken": self._read[stream]} if stream in self._read else {}
                page = self._logs.get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **token
                )
                for event in page["events"]:
                    moment = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                    lines.append((moment, event["message"].rstrip("\r\n")))
                self._read[stream] = page["nextForwardToken"]
                if token.get("nextToken") == page["nextForwardToken"]:
                    break

    def _streams(self) -> list[str]:
        try:
            found = self._logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.name}/"
            )
        except self._logs.exceptions.ResourceNotFoundException:
            return []  # nothing has been logged in this account yet
        return [stream["logStreamName"] for stream in found["logStreams"]]

    def _patiently(self, ask: Callable[[], Any], echo: Echo, sleep: Callable[[float], None]) -> Any:
        """Returns the answer, however long AWS is out of reach within ``PATIENCE_S``."""
        from botocore.exceptions import BotoCoreError, ClientError

        waited_s = 0.0
        while True:
            try:
                return ask()
            except (BotoCoreError, ClientError) as error:
                if waited_s == 0:
                    echo(f"{self.name} cannot be seen, asking again: {error}", None)
                if waited_s > PATIENCE_S:
                    raise JobUnseen(
                        f"{self.name} could not be seen for {waited_s / 60:.0f} minutes: {error}\n"
                        f"  job:    {self.url}"
                    ) from None
                sleep(LAST_POLL_S)
                waited_s += LAST_POLL_S
                self._renew()

    def _renew(self) -> None:
        import boto3

        self._session = boto3.Session()
        self._sagemaker = self._session.client("sagemaker")
        self._logs = self._session.client("logs")

    def _console(self, service: str) -> str:
        region = self.region
        return f"https://{region}.console.aws.amazon.com/{service}/home?region={region}"


def _told(facts: Mapping[str, Any]) -> str:
    """Returns how far the job is, in SageMaker's words."""
    steps = facts.get("SecondaryStatusTransitions") or [{}]
    message = steps[-1].get("StatusMessage") or ""
    phase = facts.get("SecondaryStatus") or facts["TrainingJobStatus"]
    return f"{phase}: {message}" if message else str(phase)


def _spot_savings(facts: Mapping[str, Any]) -> str:
    """Returns what spot capacity saved, in SageMaker's own way of reckoning."""
    trained_s, billed_s = facts.get("TrainingTimeInSeconds"), facts["BillableTimeInSeconds"]
    if not facts.get("EnableManagedSpotTraining") or not trained_s or billed_s >= trained_s:
        return ""
    return f"; spot saved {100 - 100 * billed_s / trained_s:.0f} % of {trained_s} s"
