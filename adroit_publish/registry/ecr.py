"""Amazon ECR, as far as it is not a registry like any other: its tokens and its repositories.

A token of ECR's API is good for twelve hours as a Basic password, and is fetched again when the
registry refuses it; no clock is asked, because this machine's may be wrong. Repositories do not
come to be by a push: they are made before one, with immutable tags and scanning on push.

Source: Amazon ECR API reference, ``GetAuthorizationToken``, ``CreateRepository``; Amazon ECR user
guide, "Private registry authentication".
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from dataclasses import dataclass
from typing import Any

from adroit_publish.aws.errors import translated
from adroit_publish.aws.session import client_config
from adroit_publish.errors import StoreError
from adroit_publish.registry.docker_config import Login

_TO = "the image registry"
_HOST = re.compile(
    r"(?P<account>[0-9]{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)"
    r"\.(?:amazonaws\.com(?:\.cn)?|on\.aws)"
)


@dataclass(frozen=True)
class EcrHost:
    """What the name of an ECR registry says: its owner's account (12 digits) and its region."""

    account: str
    region: str


def parse_ecr_host(host: str) -> EcrHost | None:
    """Returns what ``host`` says, or None where it is no private ECR registry."""
    found = _HOST.fullmatch(host)
    return EcrHost(found["account"], found["region"]) if found else None


class Ecr:
    """The ECR API of one account and region; makes repositories and knows the login.

    Account and region are the session's own where they are not given.
    """

    def __init__(self, session: Any, account: str | None = None, region: str | None = None) -> None:
        self._session = session
        self._region = region
        self._registry = {"registryId": account} if account else {}
        self._token_of = {"registryIds": [account]} if account else {}
        self._where = f"ECR of account {account}" if account else "ECR"
        self._lock = threading.Lock()
        self._client_made: Any = None
        self._login: Login | None = None

    def get(self, host: str) -> Login | None:
        """Returns the login for the registry.

        Raises:
            RefusedError: The AWS credentials are missing, expired, or may not ask for it.
            StoreError: ECR cannot be reached, or answers with something else.
        """
        with self._lock:
            if self._login is None:
                self._login = self._ask_login()
            return self._login

    def renew(self, host: str) -> Login | None:
        """Returns a new login, the last one having been refused; raises as ``get`` does."""
        with self._lock:
            self._login = None
        return self.get(host)

    def ensure_repository(self, name: str) -> bool:
        """Makes sure that a repository is there; returns whether it was created.

        A new one has immutable tags and scans what is pushed; one that is there stays as it is.

        Raises:
            RefusedError: It is not there and may not be created, or AWS denies access.
            StoreError: ECR cannot be reached.
        """
        if self._has_repository(name):
            return False
        where = f"{self._where}, repository {name}"
        with translated(where, to=_TO, needs="ecr:CreateRepository"):
            client = self._client()
            try:
                client.create_repository(
                    **self._registry,
                    repositoryName=name,
                    imageTagMutability="IMMUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                )
            except client.exceptions.RepositoryAlreadyExistsException:
                return False  # another publish was first
        return True

    def _has_repository(self, name: str) -> bool:
        where = f"{self._where}, repository {name}"
        with translated(where, to=_TO, needs="ecr:DescribeRepositories"):
            client = self._client()
            try:
                client.describe_repositories(**self._registry, repositoryNames=[name])
            except client.exceptions.RepositoryNotFoundException:
                return False
        return True

    def _ask_login(self) -> Login:
        with translated(self._where, to=_TO, needs="ecr:GetAuthorizationToken"):
            answer = self._client().get_authorization_token(**self._token_of)
            try:
                encoded = answer["authorizationData"][0]["authorizationToken"]
                username, _, secret = (
                    base64.b64decode(encoded, validate=True).decode().partition(":")
                )
            except (KeyError, IndexError, TypeError, binascii.Error, UnicodeDecodeError):
                raise StoreError(
                    "ECR gave no login.", where=self._where, wanted="base64 of user:password"
                ) from None
        return Login(username, secret)

    def _client(self) -> Any:
        if self._client_made is None:
            self._client_made = self._session.client(
                "ecr", region_name=self._region, config=client_config(4)
            )
        return self._client_made
