"""How a training job can end other than well; Metaflow prints the headline and the message."""

from metaflow.exception import MetaflowException


class SagemakerError(MetaflowException):
    """The step cannot run in SageMaker as it is written or configured; another try is no help."""

    headline = "@in_sagemaker"


class JobFailed(MetaflowException):
    """The training job failed, or ran out of time; ``@retry`` may try again."""

    headline = "SageMaker training job failed"


class NoCapacity(JobFailed):
    """AWS has no such instance for us just now; ``max_retry_attempts`` tries again."""

    headline = "SageMaker has no capacity"


class JobUnseen(JobFailed):
    """Nobody knows how the training job is: AWS is out of reach. It may be running."""

    headline = "SageMaker training job out of sight"


class JobStopped(MetaflowException):
    """Somebody stopped the training job; it is not tried again."""

    headline = "SageMaker training job stopped"
