"""Where a flow's steps find the files that users write, and what becomes of flavors.yaml in git."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adroit_publish.checkout import Checkout, find_root
from adroit_publish.config.flavors import find_flavor
from adroit_publish.errors import ConfigError
from adroit_publish.git.clone import clone
from adroit_publish.publish.release import Options
from adroit_publish.writeback.commit_checks import check_commit, refuse_local_push


@dataclass(frozen=True)
class Location:
    """Where the files that users write are, and what becomes of flavors.yaml.

    Attributes:
        flow_file: The flow's file; its directory is the checkout where the current one is none.
        repo: A repository to clone instead, on a machine without a checkout; None to use the one
            that is there.
        branch: The branch of ``repo``; None for its default.
        push: Whether that is pushed too, to the upstream of what is checked out; a push commits.
    """

    flow_file: str
    repo: str | None = None
    branch: str | None = None
    commit: bool = False
    push: bool = False

    @contextmanager
    def open(self, commit: str | None = None) -> Iterator[Path]:
        """Gives the root of the checkout, or of a clone that goes when the context ends.

        Args:
            commit: What a clone is to have checked out; None: the branch's head.

        Raises:
            ConfigError: There is no checkout, or ``repo`` is not an address.
            SourceError, StoreError: The clone did not work.
        """
        if self.repo is None:
            yield find_root(Path.cwd(), Path(self.flow_file).resolve().parent)
            return
        with TemporaryDirectory(prefix="adroit-clone-") as scratch:
            root = Path(scratch) / "clone"
            clone(self.repo, self.branch, root, commit)
            yield root


def check_commit_wish(
    checkout: Checkout, location: Location, options: Options, names: Sequence[str]
) -> None:
    """Shows, before any work, that what is written back can be committed, and pushed."""
    if location.repo is not None and not location.push:
        raise ConfigError(
            "--repo goes with --push: the clone is gone after the run.", next_step="add --push"
        )
    for name in names:
        find_flavor(checkout.flavors, name)
    if location.push:
        refuse_local_push(checkout.target(options.target))
    if location.commit or location.push:
        check_commit(checkout.root, push=location.push, flavors=names)
