"""The files of a bundle that are not the model's, and what the text of all of them imports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import adroit
from adroit_publish.bundle.content import InlineFile, Readable
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.bundle.layer import ROOT, LayerRecipe, PackedFile
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.project import DEFAULT_EXCLUDES, Project, excluded
from adroit_publish.errors import SourceError
from adroit_publish.gates.closure import Served, check_closure
from adroit_publish.gates.left_out import check_left_out
from adroit_publish.git.history import blobs_of
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


@dataclass(frozen=True)
class SourceCheck:
    """What the text of a bundle says.

    Attributes:
        imports: What it imports, and where each module is found; None where the model's files are
            not here.
        findings: What should be known of it.
    """

    imports: Imports | None
    findings: tuple[BundleFinding, ...]


Gate = Callable[[Job, Mapping[str, Readable], Imports], Iterable[BundleFinding]]


def _left_out(job: Job, files: Mapping[str, Readable], imports: Imports) -> Iterable[BundleFinding]:
    committed = blobs_of(Path(job.root), job.commit)
    return check_left_out(imports, files, committed, job.project.accept)


GATES: dict[str, Gate] = {"left out": _left_out}
"""By name, the gates over a bundle's files once its imports are known: findings, or refusals."""


def check_source(job: Job, files: Mapping[str, Readable]) -> SourceCheck:
    """Refuses a bundle that leaves out what it needs of the checkout; looks at text alone.

    Args:
        job: The publish.
        files: The bundle's files by path below ``opt/adroit``.

    Raises:
        VerificationError: A module of the project's own packages is left out, or is served as a
            copy that was logged with the model; or another of ``GATES`` refuses it.
    """
    imports, findings = check_closure(served(job, files), None)
    for gate in GATES.values():
        findings = (*findings, *gate(job, files, imports))
    mlmodel = files.get("model/MLmodel")
    model_is_here = mlmodel is not None and mlmodel.size_bytes > 0
    return SourceCheck(imports if model_is_here else None, findings)


def served(job: Job, files: Mapping[str, Readable]) -> Served:
    """Returns a bundle as the gate over its imports takes it."""
    project = job.project
    return Served(files, project.model_name, project.handler.class_path, project.accept)


def files_of(files: Iterable[PackedFile]) -> dict[str, Readable]:
    """Returns the files of a bundle by path below ``opt/adroit``."""
    return {file.path.removeprefix(ROOT + "/"): file.content for file in files}
