"""Where a bucket is reached, in whose name, and over which connections: all as boto3 would.

boto3's client makes the control calls. For the two data calls it says which address a bucket has,
and botocore signs and keeps the connections, with the proxies, CA bundles and timeouts of the
environment.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from adroit_publish.aws import session as aws

MAX_CONNECTIONS = 32


@dataclass(frozen=True)
class Connection:
    """A session with one bucket; boto3's client tries each request once, and threads share it."""

    client: Any
    base_url: str
    credentials: Any
    http: Any

    @property
    def region(self) -> str:
        """What requests are signed for."""
        return str(self.client.meta.region_name or "us-east-1")

    def sign(self, request: Any) -> None:
        """Signs botocore's ``request``; its body's hash is ``context["payload_sha256"]``."""
        credentials = self.credentials.get_frozen_credentials()
        _signer()(credentials, "s3", self.region).add_auth(request)


def connect(bucket: str, profile: str | None, endpoint: str | None) -> Connection:
    """Returns a connection with credentials that were looked for just now; nothing is sent.

    None for the profile or the endpoint leaves the choice to boto3. Raises ConfigError where there
    is no such profile, and what botocore raises.
    """
    from botocore.exceptions import NoCredentialsError
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    session = aws.session(profile)
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    client = session.client("s3", endpoint_url=endpoint, config=client_config())
    base_url = address_of(client, bucket)
    http = URLLib3Session(
        verify=aws.trusted_certificates(profile),
        proxies=get_environ_proxies(base_url),
        timeout=(aws.CONNECT_TIMEOUT_S, aws.READ_TIMEOUT_S),
        max_pool_connections=MAX_CONNECTIONS,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    return Connection(client, base_url, credentials, http)


def client_config() -> Any:
    """Returns how boto3's client is set up: one try, the region's own endpoint everywhere."""
    return aws.client_config(
        attempts=1,
        signature_version="s3v4",
        s3={"us_east_1_regional_endpoint": "regional"},
        max_pool_connections=MAX_CONNECTIONS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def address_of(client: Any, bucket: str) -> str:
    """Returns the URL that ``client`` sends a bucket's requests to.

    Source: Amazon S3 User Guide, "Virtual hosting of general purpose buckets"; boto3's "auto"
    style, which is by path on an endpoint of one's own and for names that no certificate covers.
    """
    endpoint = urlsplit(client.meta.endpoint_url)
    style = (client.meta.config.s3 or {}).get("addressing_style", "auto")
    if style == "auto":
        host = endpoint.hostname or ""
        on_aws = host.startswith("s3.") and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        style = "virtual" if on_aws and "." not in bucket else "path"
    if style == "virtual":
        return f"{endpoint.scheme}://{bucket}.{endpoint.netloc}"
    return f"{endpoint.scheme}://{endpoint.netloc}/{bucket}"


@cache
def _signer() -> Any:
    """Returns botocore's signer for S3, which takes the body's hash as known."""
    from botocore.auth import S3SigV4Auth

    class Signer(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> str:
            return str(request.context["payload_sha256"])

    return Signer
