"""A disk whose power can be cut: a file system in a file, shut down without writing its journal.

What was written and not synced is lost, as it is when a machine loses power; what was synced is
there when the disk is mounted again.

Source: EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, both ``_IOR('X', 125, __u32)``; flag 2 neither
flushes data nor the log.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.requirements import require

SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = struct.pack("I", 2)
SIZES_MB = {"ext4": 64, "xfs": 320}  # mkfs.xfs makes none below 300 MB


class Disk:
    """A file system of its own below ``directory``, mounted at ``root``.

    Each restart is an image and a mount point of its own: a process that is about to end, or a
    sandbox of another test, may hold the old one for a moment.

    Args:
        directory: Holds the images and the mount points.
        kind: ``ext4`` or ``xfs``.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self.kind = kind
        self._directory = directory
        self._starts = 0

    @property
    def root(self) -> Path:
        """Where it is mounted since the last restart."""
        return self._directory / f"disk{self._starts}"

    @property
    def _image(self) -> Path:
        return self._directory / f"disk{self._starts}.img"

    def format(self) -> None:
        """Takes an empty disk in the place of this one, and mounts it."""
        self.remove()
        self._starts += 1
        with self._image.open("wb") as image:
            image.truncate(SIZES_MB[self.kind] << 20)
        run(f"mkfs.{self.kind}", "-q", "-F" if self.kind == "ext4" else "-f", str(self._image))
        self._mount()

    def restart(self) -> None:
        """Mounts what the disk holds, as after a power cut or a reboot."""
        copy = self._directory / f"disk{self._starts + 1}.img"
        run("cp", "--sparse=always", str(self._image), str(copy))
        self.remove()
        self._starts += 1
        self._mount()

    def remove(self) -> None:
        """Unmounts and deletes it, if there is one."""
        subprocess.run(["umount", "--lazy", str(self.root)], check=False, capture_output=True)
        self._image.unlink(missing_ok=True)

    def sync(self) -> None:
        """Makes everything durable that is on the disk now."""
        run("sync", "-f", str(self.root))

    def cut_power(self) -> None:
        """Stops the disk where it is; every later call on it fails with EIO."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_FLUSHING)
        finally:
            os.close(descriptor)

    def _mount(self) -> None:
        self.root.mkdir(parents=True)
        options = (
            "loop,nouuid" if self.kind == "xfs" else "loop"
        )  # a copy has the UUID of its original
        run("mount", "-o", options, str(self._image), str(self.root))


@contextmanager
def disk(directory: Path, kind: str) -> Iterator[Disk]:
    """Yields a mounted, empty disk, and unmounts it in the end.

    Args:
        directory: Holds the image and the mount point.
        kind: ``ext4`` or ``xfs``.
    """
    directory.mkdir(parents=True)
    made = Disk(directory, kind)
    require(shutil.which(f"mkfs.{kind}"), f"mkfs.{kind} is not installed (e2fsprogs, xfsprogs)")
    try:
        made.format()
    except subprocess.CalledProcessError as error:  # not root, or a container without loop devices
        pytest.skip(f"a {kind} file system in a file cannot be mounted here: {error.stderr}")
    try:
        yield made
    finally:
        made.remove()


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
