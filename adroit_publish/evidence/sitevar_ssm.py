"""Sitevars in SSM's Parameter Store: a parameter for each model, changed under a lock.

A parameter of the standard tier holds 4,096 bytes, and SSM compares nothing before it writes. So a
writer holds a lock (handed in), reads afresh, and writes only while the lock certainly outlasts
the request. A parameter that is not there yet is made without ``Overwrite``: of many makers one
succeeds. SSM numbers the values of a parameter: a number that is not the next one shows that
somebody without the lock wrote in between, which is refused with where their value is kept.

The credentials must be of the account that was said, before anything is read or written: a
parameter's name says nothing of its owner. Each write is sent once; where its answer is lost, it
is looked at again.

Source: AWS Systems Manager API reference, ``PutParameter``, ``GetParameter``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from adroit_publish.aws.errors import translated
from adroit_publish.aws.session import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    caller_account,
    client_config,
)
from adroit_publish.aws.session import session as aws_session
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.evidence.sitevars import Lock, Seen

LIMIT_BYTES = 4096

_TO = "the sitevar"
_NEEDS = "ssm:GetParameter, ssm:GetParametersByPath and ssm:PutParameter"


class Parameters:
    """Documents as parameters below one prefix, their keys the last part of the name.

    Args:
        prefix: ``/adroit/versions``, or ``eu-west-1/adroit/versions`` in a region of its own.
        account: The 12 digits of the account they must be in; None where nobody said.
        lock: Gives the lock of a key.
    """

    def __init__(self, prefix: str, account: str | None, lock: Lock) -> None:
        self.location = f"ssm:{prefix}"
        region, slash, path = prefix.partition("/")
        self._region, self._prefix = region or None, slash + path
        self._account, self._lock = account, lock
        self._making = threading.Lock()
        self._made: tuple[Any, Any] | None = None

    def read(self, key: str) -> Seen | None:
        with translated(self._where(key), to=_TO, needs=_NEEDS):
            client = self._clients()[0]
            try:
                found = client.get_parameter(Name=f"{self._prefix}/{key}")["Parameter"]
            except client.exceptions.ParameterNotFound:
                return None
        return Seen(str(found["Value"]).encode(), str(found["Version"]))

    def put(self, key: str, data: bytes, seen: Seen | None) -> bool:
        if len(data) > LIMIT_BYTES:
            raise RefusedError(
                "The sitevar is too large for a parameter; it was left as it is.",
                where=self._where(key),
                got=f"{len(data)} bytes",
                wanted=f"at most {LIMIT_BYTES} bytes",
                next_step="point to fewer flavors, or keep the target's sitevars in S3",
            )
        with self._lock(key) as held:
            if self.read(key) != seen:
                return False
            if held.left_s() < CONNECT_TIMEOUT_S + READ_TIMEOUT_S:
                return False  # the request might arrive when another holds it
            number = self._write(key, data, seen)
        if number is not None and number != (int(seen.tag) if seen else 0) + 1:
            raise RefusedError(
                "The parameter was changed by somebody who did not hold its lock, "
                "and then by this command.",
                where=self._where(key),
                got=f"value number {number}",
                wanted=f"the next one after {seen.tag if seen else 0}",
                next_step=f"aws ssm get-parameter-history --name {self._prefix}/{key}",
            )
        return number is not None

    def keys(self, prefix: str) -> Iterator[str]:
        names = []
        with translated(self.location, to=_TO, needs=_NEEDS):
            pages = self._clients()[0].get_paginator("get_parameters_by_path")
            for page in pages.paginate(Path=self._prefix):
                names += [str(each["Name"]) for each in page["Parameters"]]
        keys = (name.removeprefix(f"{self._prefix}/") for name in names)
        yield from sorted(key for key in keys if key.startswith(prefix))

    def _write(self, key: str, data: bytes, seen: Seen | None) -> int | None:
        """Returns the number of the value written; None where it is not known to be."""
        try:
            with translated(self._where(key), to=_TO, needs=_NEEDS):
                client = self._clients()[1]
                try:
                    answer = client.put_parameter(
                        Name=f"{self._prefix}/{key}",
                        Value=data.decode(),
                        Type="String",
                        Overwrite=seen is not None,
                    )
                except client.exceptions.ParameterAlreadyExists:
                    return None
        except StoreError as error:
            if error.transient:
                return None
            raise
        return int(answer["Version"])

    def _clients(self) -> tuple[Any, Any]:
        """Returns a client that tries again, for reading, and one that does not, for writing."""
        with self._making:
            if self._made is None:
                session = aws_session(None, self._region)
                if self._account:
                    self._prove_account(caller_account(session))
                reading, writing = (
                    session.client("ssm", config=client_config(attempts)) for attempts in (4, 1)
                )
                self._made = (reading, writing)
            return self._made

    def _prove_account(self, got: str) -> None:
        if got != self._account:
            raise RefusedError(
                "The AWS credentials are of another account than the sitevar's.",
                where=self.location,
                got=got,
                wanted=self._account,
                next_step="export AWS_PROFILE=PROFILE, one of the target's",
            )

    def _where(self, key: str) -> str:
        return f"{self.location}/{key}"
