"""adroit.toml: the places to publish to, and which of them a command means.

Every key is this program's, so an unknown one is an error. Relative paths are relative to
adroit.toml and come out absolute (see ``addresses``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from adroit_publish.config import addresses
from adroit_publish.config.names import name_problem, near_miss
from adroit_publish.config.rollout import read_duration
from adroit_publish.config.yaml.text import MAX_PROBLEMS, Report
from adroit_publish.config.yaml.toml import lines_of_keys, read_toml
from adroit_publish.errors import ConfigError

_TOP = ("default_target", "targets")
_IMAGES = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(:[0-9]+)?(/[a-z0-9]+([._/-]+[a-z0-9]+)*)?"
)
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True)
class Target:
    """A named place to publish to.

    Attributes:
        profiles: AWS profiles that mean this target.
        account: The AWS account (12 digits) that credentials must be of; None: not checked.
        tracking_uri: MLflow's, absolute.
        source_profile: The AWS profile that reads MLflow's artifacts, where it is another.
        bundles: The bundle store: ``file:/abs`` or ``s3://bucket/prefix``.
        images: The image registry and prefix, ``host[:port]/prefix``.
        images_endpoint: Where the registry is reached, if not at its own name.
        images_auth: ``ecr`` or None.
        sitevars: ``file:/abs``, ``s3://bucket/key`` or ``ssm:/prefix``; None where there is no
            sitevar, or one for each region.
        regions: The sitevars' addresses by region or cluster, in the order that steps take.
        signing_key: What signs the versions that are made here: ``file:/abs`` or ``awskms:KEY``.
        require_signature: The keys of which one has to have signed a version; empty: none has to.
        signature_max_age_s: How old a signature may be; None: any age.
        profile: The AWS profile to act as; None: the environment's. No key of the file: it is for
            who works with two targets at once.
    """

    name: str
    profiles: tuple[str, ...]
    account: str | None
    tracking_uri: str
    source_profile: str | None
    bundles: str
    images: str | None
    images_endpoint: str | None
    images_auth: str | None
    sitevars: str | None
    regions: Mapping[str, str] = field(default_factory=dict)
    signing_key: str | None = None
    require_signature: tuple[str, ...] = ()
    signature_max_age_s: float | None = None
    profile: str | None = None

    @property
    def sitevar_addresses(self) -> dict[str, str]:
        """Every sitevar's address by its region; a target's only one has the region ``""``."""
        return {"": self.sitevars} if self.sitevars is not None else dict(self.regions)

    @property
    def on_this_machine(self) -> bool:
        """Whether its bundles are on this machine alone, where nobody else can read them."""
        return self.bundles.startswith("file:")


_NO_KEYS = ("name", "regions", "profile")
_KNOWN = tuple(each.name.removesuffix("_s") for each in fields(Target) if each.name not in _NO_KEYS)


@dataclass(frozen=True)
class Targets:
    """All targets of one adroit.toml."""

    default: str | None
    by_name: Mapping[str, Target]


def parse_targets(data: bytes, file: str, base: str) -> Targets:
    """Returns the targets; relative paths start from the absolute directory ``base``.

    Raises:
        ConfigError: It is not TOML, or something in it is not what it has to be; all problems
            together, with their lines.
    """
    report = Report(file)
    text, tree = read_toml(data, report)
    report.check()
    lines = lines_of_keys(text)
    for key in sorted(tree.keys() - set(_TOP))[:MAX_PROBLEMS]:
        report.add(lines.get(("", key), 0), _unknown(key, _TOP))
    tables = tree.get("targets", {})
    if not isinstance(tables, dict) or not tables:
        report.add(lines.get(("", "targets"), 0), "needs a [targets.NAME] table")
        tables = {}
    by_name = {
        name: _TargetReader(name, table, base, report, lines).read()
        for name, table in tables.items()
    }
    default = tree.get("default_target")
    if default is not None and default not in by_name:
        message = f"'default_target' is {default!r}; the targets are: {', '.join(sorted(by_name))}"
        report.add(lines.get(("", "default_target"), 0), message)
    _check_profiles(by_name, report, lines)
    report.check()
    return Targets(default, by_name)


def choose_target(targets: Targets, *, flag: str | None, environ: Mapping[str, str]) -> Target:
    """Returns the target a command means; as ``explain_choice``, without the reason."""
    return explain_choice(targets, flag=flag, environ=environ)[0]


def explain_choice(
    targets: Targets, *, flag: str | None, environ: Mapping[str, str]
) -> tuple[Target, str]:
    """Returns the target a command means, and what chose it.

    In order: ``flag`` (``--target``), ``ADROIT_TARGET``, the target whose profiles hold
    ``AWS_PROFILE``, the default. Under CI only the first two name one; with AWS credentials in the
    environment and no profile, the default is not taken.

    Raises:
        ConfigError: The named target does not exist, no target holds the profile, or the target
            has to be named and is not; the message lists the targets.
    """
    for source, name in (("--target", flag), ("ADROIT_TARGET", environ.get("ADROIT_TARGET"))):
        if name:
            if name not in targets.by_name:
                raise _no_target(targets, f"There is no target {name!r}, which {source} names.")
            return targets.by_name[name], f"{source} names it"
    if environ.get("CI", "").lower() not in ("", "0", "false", "no"):
        raise _no_target(targets, "Under CI (the variable CI is set) the target has to be named.")
    profile = environ.get("AWS_PROFILE")
    if profile:
        for target in targets.by_name.values():
            if profile in target.profiles:
                return target, f"AWS_PROFILE={profile} is one of its profiles"
        raise _no_target(targets, f"No target holds the AWS profile {profile!r} (AWS_PROFILE).")
    if any(environ.get(variable) for variable in _CREDENTIALS):
        message = "AWS credentials are in the environment without AWS_PROFILE: the target has to be"
        raise _no_target(targets, f"{message} named.")
    if targets.default is None:
        raise _no_target(targets, "No target is named, and there is no default_target.")
    return targets.by_name[targets.default], "it is default_target"


def _no_target(targets: Targets, what: str) -> ConfigError:
    listed = [
        name + (f" (profiles: {', '.join(target.profiles)})" if target.profiles else "")
        for name, target in sorted(targets.by_name.items())
    ]
    return ConfigError(
        what,
        where="adroit.toml",
        wanted=f"one of: {'; '.join(listed)}",
        next_step="name the target with --target NAME or ADROIT_TARGET=NAME",
    )


def _unknown(key: str, known: tuple[str, ...]) -> str:
    meant = near_miss(key, known)
    hint = f"is {meant!r} meant?" if meant else f"known: {', '.join(known)}"
    return f"unknown key {key[:80]!r}; {hint}"


def _check_profiles(
    by_name: Mapping[str, Target], report: Report, lines: Mapping[tuple[str, str], int]
) -> None:
    holder: dict[str, str] = {}
    for name, target in by_name.items():
        for profile in target.profiles:
            if holder.setdefault(profile, name) != name:
                message = f"the profile {profile!r} is held by {holder[profile]!r} and {name!r}"
                report.add(lines.get((name, "profiles"), 0), f"{message}; it can mean one target")


class _TargetReader:
    """Reads one ``[targets.NAME]`` table; what is wrong goes to the report."""

    def __init__(
        self,
        name: str,
        table: Any,
        base: str,
        report: Report,
        lines: Mapping[tuple[str, str], int],
    ) -> None:
        self._name, self._base, self._report, self._lines = name, base, report, lines
        self._table: dict[str, Any] = table if isinstance(table, dict) else {}
        problem = name_problem(name, ascii_only=True)
        if problem:
            self._problem("", f"the name {problem}")
        if not isinstance(table, dict):
            self._problem("", "must be a table")
        for key in sorted(self._table.keys() - set(_KNOWN))[:MAX_PROBLEMS]:
            self._problem(key, _unknown(key, _KNOWN))

    def read(self) -> Target:
        account = self._text("account")
        if account is not None and not re.fullmatch(r"[0-9]{12}", account):
            self._problem("account", "'account' must be 12 digits")
        images_auth = self._text("images_auth")
        if images_auth not in (None, "ecr"):
            self._problem("images_auth", "'images_auth' can be \"ecr\" alone")
        images = self._text("images")
        if images is not None and not _IMAGES.fullmatch(images):
            self._problem(
                "images", "'images' is HOST[:PORT]/PREFIX in lower case, without a scheme"
            )
        return Target(
            name=self._name,
            profiles=self._texts("profiles", "AWS profile names"),
            account=account,
            tracking_uri=self._address("tracking_uri", addresses.tracking_address, required=True)
            or "",
            source_profile=self._text("source_profile"),
            bundles=self._address("bundles", addresses.storage_address, required=True) or "",
            images=images,
            images_endpoint=self._address("images_endpoint", addresses.web_address),
            images_auth=images_auth,
            **self._sitevars(),
            signing_key=self._address("signing_key", addresses.key_address),
            require_signature=self._keys(),
            signature_max_age_s=self._max_age_s(),
        )

    def _sitevars(self) -> dict[str, Any]:
        table = self._table.get("sitevars")
        if not isinstance(table, dict):
            return {"sitevars": self._address("sitevars", addresses.sitevar_address)}
        regions: dict[str, str] = {}
        for region, text in table.items():
            try:
                if problem := name_problem(region, ascii_only=True):
                    raise ValueError(problem)
                if not isinstance(text, str):
                    raise ValueError("must be an address")
                regions[region] = addresses.sitevar_address(text, self._base)
            except ValueError as reason:
                self._problem("sitevars", f"'sitevars' of {region[:80]!r} {reason}")
        if not table or len(set(regions.values())) < len(regions):
            self._problem("sitevars", "'sitevars' needs an address of its own for each region")
        return {"sitevars": None, "regions": regions}

    def _problem(self, key: str, message: str) -> None:
        line = self._lines.get((self._name, key)) or self._lines.get((self._name, ""), 0)
        self._report.add(line, f"target {self._name!r}: {message}")

    def _text(self, key: str, *, required: bool = False) -> str | None:
        value = self._table.get(key)
        if value is None:
            if required:
                self._problem(key, f"{key!r} is missing")
            return None
        if not isinstance(value, str) or not value or not value.isprintable():
            self._problem(key, f"{key!r} must be a string that prints and is not empty")
            return None
        return value

    def _texts(self, key: str, what: str) -> tuple[str, ...]:
        value = self._table.get(key, [])
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        self._problem(key, f"{key!r} must be a list of {what}")
        return ()

    def _keys(self) -> tuple[str, ...]:
        key = "require_signature"
        texts = self._texts(key, "keys: file:PATH or awskms:KEY")
        if self._table.get(key) == []:  # it would look like a demand, and demand nothing
            self._problem(key, f"{key!r} must list a key at least, or be left out")
        read = (self._read(key, text, addresses.key_address) for text in texts)
        return tuple(filter(None, read))

    def _max_age_s(self) -> float | None:
        key = "signature_max_age"
        if key not in self._table:
            return None
        try:
            return read_duration(self._table[key])
        except ValueError as reason:
            self._problem(key, f"{key!r}: {reason}")
            return None

    def _address(
        self, key: str, read: Callable[[str, str], str], *, required: bool = False
    ) -> str | None:
        text = self._text(key, required=required)
        return None if text is None else self._read(key, text, read)

    def _read(self, key: str, text: str, read: Callable[[str, str], str]) -> str | None:
        try:
            return read(text, self._base)
        except ValueError as reason:
            self._problem(key, f"{key!r} {reason}")
            return None
