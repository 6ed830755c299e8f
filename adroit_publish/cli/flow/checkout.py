"""Where a flow's steps find the files that users write, and what becomes of flavors.yaml in git."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adroit_publish.checkout import Checkout, find_root, open_checkout
from adroit_publish.config.flavors import find_flavor
from adroit_publish.errors import ConfigError
from adroit_publish.git.clone import clone
from adroit_publish.publish.release import Options
from adroit_publish.writeback.commit_checks import check_commit, refuse_local_push


@dataclass(frozen=True)
class FlowCheckout:
    """Where the files that users write are.

    Attributes:
        flow_file: The flow's file; its directory is the checkout where the current one is none.
        repo: A repository to clone instead, on a machine without a checkout; None to use the one
            that is there.
        branch: The branch of ``repo``; None for its default.
    """

    flow_file: str
    repo: str | None = None
    branch: str | None = None

    @contextmanager
    def open(self, commit: str | None = None) -> Iterator[Path]:
        """Gives the root of the checkout, or of a clone that goes when the context ends.

        Args:
            commit: What a clone is to have checked out; None: the branch's head.

        Raises:
            ConfigError: There is no checkout, or ``repo`` is no address.
            SourceError, StoreError: The clone did not work.
        """
        if self.repo is None:
            yield find_root(Path.cwd(), Path(self.flow_file).resolve().parent)
            return
        with TemporaryDirectory(prefix="adroit-clone-") as scratch:
            root = Path(scratch) / "clone"
            clone(self.repo, self.branch, root, commit)
            yield root


@dataclass(frozen=True)
class Commit:
    """What is to become of flavors.yaml beside the write-back.

    Attributes:
        wanted: Whether it is committed.
        push: Whether the commit is pushed, to the upstream of what is checked out.
    """

    wanted: bool
    push: bool

    @classmethod
    def of(cls, commit: bool, push: bool) -> Commit:
        """Returns what two flags mean: a push needs a commit."""
        return cls(commit or push, push)


@contextmanager
def opened(location: FlowCheckout) -> Iterator[Checkout]:
    """Gives the checkout as checked values; raises as ``FlowCheckout.open``, and ConfigError."""
    with location.open() as root:
        yield open_checkout(root)


def check_commit_wish(
    checkout: Checkout,
    location: FlowCheckout,
    options: Options,
    commit: Commit,
    names: Sequence[str],
) -> None:
    """Shows, before any work, that what is written back can be committed, and pushed.

    Raises:
        ConfigError, SourceError, RefusedError, StoreError: As ``commit_checks.check_commit``.
    """
    if location.repo is not None and not commit.push:
        raise ConfigError(
            "--repo goes with --push: the clone is gone after the run.", next_step="add --push"
        )
    for name in names:
        find_flavor(checkout.flavors, name)
    if commit.push:
        refuse_local_push(checkout.target(options.target))
    if commit.wanted:
        check_commit(checkout.root, push=commit.push, flavors=names)
