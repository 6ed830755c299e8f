"""AWS sessions, and what goes wrong with credentials, in the user's words.

boto3 finds credentials, regions and endpoints (``AWS_PROFILE``, ``AWS_DEFAULT_REGION``,
``AWS_ENDPOINT_URL``, SSO, roles, ...); nothing here second-guesses it. It is imported only where
something is asked of AWS: its import takes most of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError

if TYPE_CHECKING:
    import boto3

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 20.0

EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
WRONG_CREDENTIAL_CODES = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def session(profile: str | None, region: str | None = None) -> boto3.Session:
    """Returns a new session: its credentials are looked for again.

    Args:
        profile: An AWS profile; None leaves the choice to boto3 (``AWS_PROFILE``, ...).
        region: A region; None leaves the choice to boto3, but for a profile that is named here:
            its own goes before ``AWS_DEFAULT_REGION``, which is of the environment's profile.

    Raises:
        ConfigError: There is no such profile.
    """
    import boto3

    with translated("the AWS configuration"):
        found = boto3.Session(profile_name=profile, region_name=region)
        own = found._session.get_scoped_config().get("region") if profile and not region else None
        return boto3.Session(profile_name=profile, region_name=own) if own else found


def caller_account(session: boto3.Session) -> str:
    """Returns the 12 digits of the account that the session's credentials belong to.

    Args:
        session: As ``session`` gives it.

    Raises:
        RefusedError: There are no credentials, or they have expired or are wrong.
        StoreError: STS could not be reached.
    """
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    with translated("sts get-caller-identity"):
        region = session.region_name or "us-east-1"
        client = session.client("sts", region_name=region, config=config)
        return str(client.get_caller_identity()["Account"])


def credentials_error(code: str, where: object) -> RefusedError | None:
    """Returns the error for an AWS error code that is about credentials; None for any other."""
    if code in EXPIRED_CODES:
        return RefusedError(
            "The AWS credentials have expired.",
            where=where,
            got=code,
            next_step="log in again (aws sso login --profile PROFILE), then run the same command "
            "again: what is stored already is not sent twice",
        )
    if code in WRONG_CREDENTIAL_CODES:
        return RefusedError(
            "AWS does not accept the credentials.",
            where=where,
            got=code,
            next_step="see whose they are: aws sts get-caller-identity",
        )
    if code == "RequestTimeTooSkewed":
        return RefusedError(
            "AWS refuses requests because this machine's clock is wrong.",
            where=where,
            got=code,
            next_step="set the clock, then run the same command again",
        )
    return None


@contextmanager
def translated(where: object) -> Iterator[None]:
    """Turns botocore's exceptions into this program's errors.

    Args:
        where: What was asked, as a user knows it.

    Raises:
        ConfigError: A profile or the AWS configuration is not what it has to be.
        RefusedError: No credentials, or none that AWS accepts for this.
        StoreError: AWS could not be reached, or failed.
    """
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        raise _of_code(error, where) from error
    except (aws.ProfileNotFound, aws.ConfigParseError, aws.InvalidConfigError) as error:
        raise ConfigError(
            "The AWS configuration cannot be used.",
            where=where,
            got=error,
            next_step="aws configure list-profiles",
        ) from error
    except _no_credentials() as error:
        raise RefusedError(
            "There are no AWS credentials that can be used.",
            where=where,
            got=error,
            next_step="set AWS_PROFILE, or log in: aws sso login --profile PROFILE",
        ) from error
    except aws.NoRegionError as error:
        raise ConfigError(
            "No AWS region is set.", where=where, next_step="export AWS_DEFAULT_REGION=REGION"
        ) from error
    except aws.BotoCoreError as error:
        raise StoreError(
            "AWS could not be reached.",
            where=where,
            got=type(error).__name__,  # its text can hold a signed URL
            transient=True,
            next_step="run the same command again",
        ) from error


def _no_credentials() -> tuple[type[Exception], ...]:
    from botocore import exceptions as aws

    return (
        aws.NoCredentialsError,
        aws.PartialCredentialsError,
        aws.CredentialRetrievalError,
        aws.SSOError,
        aws.TokenRetrievalError,
    )


def _of_code(error: Any, where: object) -> PublishError:
    facts = error.response.get("Error", {})
    code, message = str(facts.get("Code", "")), str(facts.get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if found := credentials_error(code, where):
        return found
    if status in (401, 403) or "AccessDenied" in code:
        return RefusedError(
            "AWS denies access.",
            where=where,
            got=f"{code}: {message}",
            next_step="ask for the permission, or choose another profile",
        )
    transient = status == 429 or status >= 500 or "Throttl" in code
    return StoreError("AWS failed.", where=where, got=f"{code}: {message}", transient=transient)
