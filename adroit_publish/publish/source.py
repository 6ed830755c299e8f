"""The files of a bundle that are not the model's, and what the text of all of them imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import adroit
from adroit_publish.bundle.content import InlineFile, Readable
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.bundle.layer import ROOT, LayerRecipe, PackedFile
from adroit_publish.checkout import CONDA_ENVS, FLAVORS, Checkout
from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.file_names import NEVER_PACKED, is_never_packed
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.project import DEFAULT_EXCLUDES, Project, excluded
from adroit_publish.errors import SourceError
from adroit_publish.gates.closure import Served, check_closure
from adroit_publish.gates.left_out import check_left_out
from adroit_publish.gates.pickles.check import check_pickles, modules_of
from adroit_publish.gates.secrets.check import check_secrets
from adroit_publish.git.history import blobs_of
from adroit_publish.git.source import SourceFile, snapshot
from adroit_publish.publish.release import Job


@dataclass(frozen=True)
class Source:
    """What of a bundle comes from the checkout.

    Attributes:
        dirty: Paths that differ from it, of files that are packed or decide; sorted.
        runtime: The files of ``adroit`` that serve, of the checkout where it has them.
        remote_url: Where `origin` is, without credentials; None where there is none.
    """

    commit: str
    dirty: tuple[str, ...]
    files: tuple[SourceFile, ...]
    runtime: LayerRecipe
    remote_url: str | None


def project_source(checkout: Checkout, flavor: Flavor, *, allow_dirty: bool) -> Source:
    """Returns the project's files at HEAD, with its includes and less its excludes.

    What decides about them is held to the commit as well: the project's config.yaml, the conda env
    and its environment.yml, and of flavors.yaml what a flavor that is committed names. (Its run,
    and which model of it, is the question that a publish answers, and usually committed after it.)

    Raises:
        ConfigError: As ``Checkout.project`` and ``Checkout.conda_env``.
        DirtyTree: A file that would be packed or decides is not what HEAD says, and
            ``allow_dirty`` is off; names them all.
        SourceError: The checkout, or a file in it, cannot be packed; or it changed meanwhile.
    """
    project, env = checkout.project(flavor), checkout.conda_env(flavor)
    source, deciding = _take(checkout, flavor, project, env, allow_dirty)
    for path, data in deciding.items():
        if data != checkout.file(path, "it decides what is packed"):
            raise _changed(checkout.root, path)
    return source


def source_of(job: Job) -> Source:
    """Returns the source of a job: of the commit that its plan was made at.

    Raises:
        SourceError: As ``project_source``; or HEAD moved since, or what decides changed.
    """
    root, flavor, env = Path(job.root), job.flavor, job.env
    source, deciding = _take(Checkout(root), flavor, job.project, env.env, job.options.allow_dirty)
    if source.commit != job.commit:
        raise SourceError(
            "HEAD moved while the publish was on its way.",
            where=root,
            got=source.commit,
            wanted=job.commit,
            next_step="run the same command again",
        )
    checkout = Checkout(root, read=lambda _, path: deciding.get(path, b""))
    if checkout.project(flavor) != job.project:
        raise _changed(root, flavor.config)
    if not env.carried and checkout.conda_env(flavor) != env.env:
        raise _changed(root, CONDA_ENVS)
    if not env.carried and not env.base and checkout.environment_digest(env.env) != env.digest:
        raise _changed(root, str(env.env.environment))
    return source


def _take(
    checkout: Checkout, flavor: Flavor, project: Project, env: CondaEnv, allow_dirty: bool
) -> tuple[Source, dict[str, bytes]]:
    """Returns the source, and the bytes of the files that decide about it."""
    root, same = checkout.root, checkout.names_as_committed(flavor)
    differing = {} if same else {FLAVORS: "another config or conda_env"}
    directory, runtime = flavor.config.rpartition("/")[0], _runtime_directory(root)
    patterns = (*DEFAULT_EXCLUDES, *NEVER_PACKED, *project.exclude)

    def is_packed(path: str) -> bool:
        # Patterns are relative to the project; an include keeps all of its files but those.
        if path.startswith(directory + "/"):
            return not excluded(path[len(directory) + 1 :], patterns)
        below = [path.removeprefix(f"{include}/") for include in project.include]
        return any(part != path and not is_never_packed(part) for part in below)

    def serves(path: str) -> bool:
        return path == f"{runtime}/__init__.py" or (
            path.startswith(f"{runtime}/serving/") and path.endswith(".py")
        )

    taken = snapshot(
        root,
        (directory, *project.include),
        is_excluded=lambda path: not is_packed(path) and not serves(path),
        allow_dirty=allow_dirty,
        optional=[runtime] if runtime else [],
        deciding=[path for path in (flavor.config, CONDA_ENVS, env.environment) if path],
        differing=differing,
    )
    serving = tuple(
        PackedFile(f"{ROOT}/runtime/adroit{file.path.removeprefix(runtime)}", file.content)
        for file in taken.files
        if runtime and serves(file.path)
    )
    source = Source(
        commit=taken.commit,
        dirty=taken.dirty,
        files=tuple(file for file in taken.files if is_packed(file.path)),
        runtime=LayerRecipe("runtime", serving) if serving else runtime_recipe(),
        remote_url=taken.remote_url,
    )
    return source, {file.path: _bytes_of(file) for file in taken.deciding}


def _bytes_of(file: SourceFile) -> bytes:
    with file.content.open() as stream:
        return stream.read()


def _runtime_directory(root: Path) -> str | None:
    """Returns where in the checkout ``adroit`` was imported from; None: from elsewhere."""
    package, root = Path(adroit.__file__).resolve().parent, root.resolve()
    return package.relative_to(root).as_posix() if package.is_relative_to(root) else None


def _changed(root: Path, path: str) -> SourceError:
    return SourceError(
        f"{path} changed while the publish was on its way.",
        where=root,
        next_step="run the same command again",
    )


def source_recipe(source: Source) -> LayerRecipe:
    """Returns the source layer: paths relative to the repository's root, the import root."""
    files = (
        PackedFile(f"{ROOT}/source/{file.path}", file.content, file.executable)
        for file in source.files
    )
    return LayerRecipe("source", tuple(files))


def runtime_recipe() -> LayerRecipe:
    """Returns the runtime layer of ``adroit`` as it is installed, its serving part alone."""
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
    """

    imports: Imports | None
    findings: tuple[BundleFinding, ...]


Gate = Callable[[Job, Mapping[str, Readable], Imports], Iterable[BundleFinding]]


def _left_out(job: Job, files: Mapping[str, Readable], imports: Imports) -> Iterable[BundleFinding]:
    committed = blobs_of(Path(job.root), job.commit)
    return check_left_out(imports, files, committed, job.project.model_name, job.project.accept)


def _secrets(job: Job, files: Mapping[str, Readable], imports: Imports) -> Iterable[BundleFinding]:
    return check_secrets(
        {**files, **_of_config(job.flavor, job.project)}, job.project.allow_secrets
    )


GATES: dict[str, Gate] = {"left out": _left_out, "secrets": _secrets}
"""By name, the gates over a bundle's files once its imports are known: findings, or refusals."""


def check_source(job: Job, files: Mapping[str, Readable]) -> SourceCheck:
    """Refuses a bundle that leaves out what it needs, or holds what it must not; runs nothing.

    Args:
        files: The bundle's files by path below ``opt/adroit``.

    Raises:
        VerificationError: A module of the project's own packages is left out, or is served as a
            copy that was logged with the model; or another of ``GATES`` refuses it.
        RefusedError: As ``check_pickles`` and ``check_secrets``.
    """
    bundle = served(job, files)
    imports, findings = check_closure(bundle, None)
    own = modules_of([*bundle.below("source"), *bundle.below("model/code")])
    pickled, waived = check_pickles(files, own, job.project.allow_pickle_globals)
    imports, findings = replace(imports, pickled=pickled), (*findings, *waived)
    for gate in GATES.values():
        findings = (*findings, *gate(job, files, imports))
    mlmodel = files.get("model/MLmodel")
    model_is_here = mlmodel is not None and mlmodel.size_bytes > 0
    return SourceCheck(imports if model_is_here else None, findings)


def check_source_secrets(flavor: Flavor, project: Project, source: Source) -> None:
    """Refuses a project's files that look like secrets, before anything is pulled.

    Raises:
        RefusedError: As ``check_secrets``.
    """
    files = files_of(source_recipe(source).files)
    check_secrets(files | _of_config(flavor, project), project.allow_secrets)


def _of_config(flavor: Flavor, project: Project) -> dict[str, Readable]:
    """Returns what of config.yaml becomes part of bundle.json."""
    serve = json.dumps(project.serve, indent=1, sort_keys=True, ensure_ascii=False)
    return {f"source/{flavor.config} (serve)": InlineFile(serve.encode())}


def served(job: Job, files: Mapping[str, Readable]) -> Served:
    """Returns a bundle as the gate over its imports takes it."""
    project = job.project
    return Served(files, project.model_name, project.handler.class_path, project.accept)


def files_of(files: Iterable[PackedFile]) -> dict[str, Readable]:
    """Returns the files of a bundle by path below ``opt/adroit``."""
    return {file.path.removeprefix(ROOT + "/"): file.content for file in files}
