"""What a failure of AWS means to a user: one translation for all of its services.

S3's own words (buckets, regions, owners) are in ``stores.s3.problem``, next to what asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError

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
CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})


@contextmanager
def translated(where: object, *, to: str = "", needs: str = "") -> Iterator[None]:
    """Turns botocore's exceptions into this program's errors, as ``error_of`` does."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise error_of(error, where, to=to, needs=needs) from error


def error_of(error: Exception, where: object, *, to: str = "", needs: str = "") -> PublishError:
    """Returns what an exception of botocore means.

    Args:
        error: A ``BotoCoreError`` or a ``ClientError``.
        where: What was asked, as a user knows it.
        to: What access is denied to, where it is: ``the sitevar``.
        needs: The permissions that the request takes: ``ssm:GetParameter``.

    Returns:
        ConfigError for a profile or configuration, RefusedError where there are no credentials that
        AWS accepts for this, StoreError where it could not be reached, or failed.
    """
    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        return _of_answer(error, where, to, needs)
    if isinstance(
        error, botocore.ProfileNotFound | botocore.ConfigParseError | botocore.InvalidConfigError
    ):
        return ConfigError(
            "The AWS configuration cannot be used.",
            where=where,
            got=error,
            next_step="aws configure list-profiles",
        )
    if isinstance(error, botocore.NoRegionError):
        return ConfigError(
            "No AWS region is set.", where=where, next_step="export AWS_DEFAULT_REGION=REGION"
        )
    if isinstance(
        error,
        botocore.NoCredentialsError
        | botocore.PartialCredentialsError
        | botocore.CredentialRetrievalError
        | botocore.SSOError
        | botocore.TokenRetrievalError,
    ):
        return RefusedError(
            "There are no AWS credentials that can be used.",
            where=where,
            got=error,
            next_step="set AWS_PROFILE, or log in: aws sso login --profile PROFILE",
        )
    return StoreError(
        "AWS could not be reached.",
        where=where,
        got=type(error).__name__,  # its text can hold a signed URL
        transient=True,
        next_step="run the same command again",
    )


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
    if code in CLOCK_CODES:
        return RefusedError(
            "AWS refuses requests because this machine's clock is wrong.",
            where=where,
            got=code,
            next_step="set the clock, then run the same command again",
        )
    return None


def _of_answer(error: Any, where: object, to: str, needs: str) -> PublishError:
    facts = error.response.get("Error", {})
    code, message = str(facts.get("Code", "")), str(facts.get("Message", ""))[:300]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if refused := credentials_error(code, where):
        return refused
    if status in (401, 403) or "AccessDenied" in code:
        return RefusedError(
            f"AWS denies access to {to}." if to else "AWS denies access.",
            where=where,
            got=f"{code}: {message}",
            wanted=f"the permission {needs}" if needs else None,
            next_step=f"have {needs or 'the permission'} granted, or choose another AWS profile",
        )
    passing = status in (408, 429) or status >= 500 or "Throttl" in code or "TooMany" in code
    return StoreError("AWS failed.", where=where, got=f"{code}: {message}", transient=passing)
