"""The files of a bundle that are not the model's: the project's source and the runtime."""

from __future__ import annotations

from pathlib import Path

import adroit
from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.layer import ROOT, LayerRecipe, PackedFile
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.project import DEFAULT_EXCLUDES, Project, excluded
from adroit_publish.errors import SourceError
from adroit_publish.git.source import Snapshot, snapshot
from adroit_publish.publish.release import Job


def project_source(root: Path, flavor: Flavor, project: Project, *, allow_dirty: bool) -> Snapshot:
    """Returns the project's files at HEAD, with its includes and less its excludes.

    Raises:
        DirtyTree: A file that would be packed is not what HEAD says, and ``allow_dirty`` is off.
        SourceError: The checkout, or a file in it, cannot be packed.
    """
    directory = flavor.config.rpartition("/")[0]
    patterns = (*DEFAULT_EXCLUDES, *project.exclude)

    def is_excluded(path: str) -> bool:
        # Patterns are relative to the project; an include keeps all of its files.
        inside = path.startswith(directory + "/")
        return inside and excluded(path[len(directory) + 1 :], patterns)

    return snapshot(
        root,
        (directory, *project.include),
        is_excluded=is_excluded,
        allow_dirty=allow_dirty,
    )


def source_of(job: Job) -> Snapshot:
    """Returns the source of a job, which is that of the commit its plan was made at.

    Raises:
        SourceError: As ``project_source``; or HEAD moved since.
    """
    allow_dirty = job.options.allow_dirty
    source = project_source(Path(job.root), job.flavor, job.project, allow_dirty=allow_dirty)
    if source.commit != job.commit:
        raise SourceError(
            "HEAD moved while the publish was on its way.",
            where=job.root,
            got=source.commit,
            wanted=job.commit,
            next_step="run the same command again",
        )
    return source


def source_recipe(source: Snapshot) -> LayerRecipe:
    """Returns the source layer: paths relative to the repository's root, the import root."""
    files = (
        PackedFile(f"{ROOT}/source/{file.path}", file.content, file.executable)
        for file in source.files
    )
    return LayerRecipe("source", tuple(files))


def runtime_recipe() -> LayerRecipe:
    """Returns the runtime layer: ``adroit`` as this program has it, its serving part alone."""
    package = Path(adroit.__file__).parent
    paths = [package / "__init__.py", *package.glob("serving/**/*.py")]
    files = (
        PackedFile(
            f"{ROOT}/runtime/adroit/{path.relative_to(package).as_posix()}",
            InlineFile(path.read_bytes()),
        )
        for path in paths
    )
    return LayerRecipe("runtime", tuple(files))
