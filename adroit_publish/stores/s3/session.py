"""Where a bucket is reached, in whose name, and over which connections: all as boto3 would.

boto3 reads the configuration, finds the credentials and says which address a bucket has; botocore
signs, and keeps the connections with the proxies, CA bundles and timeouts of the environment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from adroit_publish.aws import session as aws

MAX_CONNECTIONS = 32


@dataclass(frozen=True)
class Connection:
    """What a session comes to, for one bucket.

    Attributes:
        base_url: The bucket's address, without a slash at its end.
        region: What requests are signed for.
        credentials: botocore's; they renew themselves where they can.
        http: botocore's pool of kept connections; threads share it.
    """

    base_url: str
    region: str
    credentials: Any
    http: Any

    def sign(self, request: Any) -> None:
        """Signs botocore's ``request``; its body's hash is ``context["payload_sha256"]``."""
        credentials = self.credentials.get_frozen_credentials()
        _signer()(credentials, "s3", self.region).add_auth(request)


def connect(
    bucket: str, profile: str | None, region: str | None, endpoint: str | None
) -> Connection:
    """Returns a connection with credentials that were looked for just now; nothing is sent.

    Args:
        bucket: The bucket.
        profile: An AWS profile; None leaves the choice to boto3.
        region: The bucket's region; None leaves the choice to boto3.
        endpoint: Where S3 is reached; None leaves the choice to boto3.

    Raises:
        BotoCoreError: botocore's own; the caller translates them.
        ConfigError: There is no such profile.
    """
    from botocore.exceptions import NoCredentialsError
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    session = aws.session(profile, region)
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    client = session.client("s3", endpoint_url=endpoint, config=client_config())
    base_url = address_of(client, bucket)
    http = URLLib3Session(
        verify=_ca_bundle(session),
        proxies=get_environ_proxies(base_url),
        timeout=(aws.CONNECT_TIMEOUT_S, aws.READ_TIMEOUT_S),
        max_pool_connections=MAX_CONNECTIONS,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    return Connection(base_url, client.meta.region_name or "us-east-1", credentials, http)


def client_config() -> Any:
    """Returns how boto3's client is set up: the region's own endpoint, in us-east-1 as well."""
    from botocore.config import Config

    return Config(s3={"us_east_1_regional_endpoint": "regional"})


def address_of(client: Any, bucket: str) -> str:
    """Returns the URL that boto3 sends a bucket's requests to, without sending one."""
    from botocore.awsrequest import AWSResponse

    urls: list[str] = []

    class Nothing:
        def stream(self) -> Iterator[bytes]:
            return iter(())

    def instead_of_sending(request: Any, **_: object) -> Any:
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, Nothing())

    client.meta.events.register("before-send.s3.HeadBucket", instead_of_sending)
    client.head_bucket(Bucket=bucket)
    return urls[0].partition("?")[0].rstrip("/")


@cache
def _signer() -> Any:
    """Returns botocore's signer for S3, which takes the body's hash as known."""
    from botocore.auth import S3SigV4Auth

    class Signer(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> str:
            return str(request.context["payload_sha256"])

    return Signer


def _ca_bundle(session: Any) -> Any:
    # As botocore's clients choose it.
    named = session._session.get_config_variable("ca_bundle")
    return named or os.environ.get("REQUESTS_CA_BUNDLE") or True
