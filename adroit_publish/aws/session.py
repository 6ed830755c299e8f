"""AWS sessions and clients: who asks, and how long an answer may take.

boto3 finds credentials, regions and endpoints (``AWS_PROFILE``, ``AWS_DEFAULT_REGION``,
``AWS_ENDPOINT_URL``, SSO, roles, ...); nothing here second-guesses it. It is imported only where
something is asked of AWS: its import takes most of a second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from adroit_publish.aws.errors import translated

if TYPE_CHECKING:
    import boto3

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 20.0


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
    import botocore.session

    with translated("the AWS configuration"):
        core = botocore.session.Session(profile=profile)
        own = core.get_scoped_config().get("region") if profile else None
        return boto3.Session(botocore_session=core, region_name=region or own)


def client_config(attempts: int, **options: Any) -> Any:
    """Returns botocore's ``Config`` for a client, with our timeouts.

    ``attempts`` are those of one request: 1 where the caller tries again itself.
    """
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": attempts},
        **options,
    )


def caller_account(session: boto3.Session) -> str:
    """Returns the 12 digits of the account of the credentials; raises as ``translated``."""
    with translated("sts get-caller-identity"):
        region = session.region_name or "us-east-1"
        client = session.client("sts", region_name=region, config=client_config(3))
        return str(client.get_caller_identity()["Account"])


def trusted_certificates(profile: str | None) -> str | bool:
    """Returns the CA bundle that botocore's clients verify by; True where it is their own."""
    import botocore.session

    configured = botocore.session.Session(profile=profile).get_config_variable("ca_bundle")
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or True
