"""Images of a real Python environment, for tests that run containers.

``push_carved_env`` (seconds, no network) carves one out of this machine: the interpreter that runs
the tests, its standard library, the shared libraries both need, and of the installed packages
those that conda_envs/sklearn/environment.yml asks for, with what they require. No shell, no package
manager: what a distroless image is. ``push_debian_env`` (minutes, needs the package mirrors) makes
one as people do, by debootstrap and pip.

Both serve with /opt/conda/envs/adroit/bin/python, as conda_envs.yaml has it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.content import Concatenation, Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.layer import LAYER_MEDIA_TYPE
from adroit_publish.bundle.manifest import CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from adroit_publish.config.environment_yml import parse_environment
from adroit_publish.registry.image_reference import Tag
from tests.servers.eng_account import images
from tests.servers.registry_servers import RegistryServer

ENV = Path("/opt/conda/envs/adroit")
PYTHON = str(ENV / "bin/python")
ENVIRONMENT_YML = Path(__file__).parents[2] / "conda_envs/sklearn/environment.yml"
LOCK = Path(__file__).parents[2] / "requirements.lock"
_PIN = re.compile(r"^[A-Za-z0-9._-]+==[^\\\n]+", re.MULTILINE)  # with its marker, less its hashes
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_ENVIRONMENT = [
    f"PATH={ENV}/bin:/usr/bin:/bin",
    "PYTHONPATH=/opt/adroit/runtime",
    "PYTHONDONTWRITEBYTECODE=1",
]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SHELL_PROGRAMS = (
    "bash",
    "cat",
    "date",
    "grep",
    "gzip",
    "mkdir",
    "mkfifo",
    "rm",
    "sed",
    "seq",
    "sleep",
    "tail",
    "tar",
    "tee",
    "tr",
)
_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nadroit:x:1000:1000::/tmp:/sbin/nologin\n"


def environment_requirements() -> list[str]:
    """Returns the lines of the pip part of the sklearn env's environment.yml."""
    return list(parse_environment(ENVIRONMENT_YML.read_bytes(), str(ENVIRONMENT_YML)).pip)


def push_carved_env(server: RegistryServer, reference: str, *, less: Iterable[str] = ()) -> Digest:
    """Pushes the carved environment and returns the digest of its manifest.

    Args:
        server: The registry.
        reference: ``repository:tag``.
        less: Distributions that it lacks.
    """
    return _push(server, reference, _carved_layers(less))


def push_python(server: RegistryServer, reference: str) -> Digest:
    """Pushes the interpreter alone, with what ``venv`` needs: a base for an env to be built on."""
    return _push(server, reference, [_interpreter_layer()])


def push_debian_env(server: RegistryServer, reference: str) -> Digest:
    """Pushes a Debian with the environment in a venv, made here by debootstrap and pip."""
    return _push(server, reference, [_debian_layer(tuple(environment_requirements()))])


def push_layout(server: RegistryServer, layout: Path) -> str:
    """Pushes a bundle's layout on the carved environment; returns the image by digest.

    Args:
        server: The registry.
        layout: Holds model/, runtime/, source/ and bundle.json (see ``serving_bundles``).
    """
    with _layer("bundle") as (path, tar):
        tar.add(layout, arcname="opt/adroit")
    digest = _push(server, "adroit-env/sklearn:bundle", [*_carved_layers(), path])
    return f"{server.host}/adroit-env/sklearn@{digest}"


def training_tar() -> Path:
    """Returns the root of an image to train in, for ``docker import``: a shell, Python, Metaflow.

    Its PATH has to begin with ``ENV``'s ``bin``.
    """
    programs = [Path(str(shutil.which(name))) for name in _SHELL_PROGRAMS]
    with _layer("shell") as (shell, tar):
        for file in [*programs, *_libraries(programs)]:
            _add(tar, file, Path("/usr/bin", file.name) if file in programs else file)
    parts = [_interpreter_layer(), _packages_layer(("metaflow", "boto3", "requests")), shell]
    with _layer("training") as (path, tar):
        there: set[str] = set()
        for part in parts:
            with tarfile.open(part) as layer:
                for member in layer:
                    if member.name not in there:  # layers may share a library, one tar may not
                        tar.addfile(member, layer.extractfile(member) if member.isreg() else None)
                    there.add(member.name)
    return path


def _carved_layers(less: Iterable[str] = ()) -> list[Path]:
    asked = [Requirement(line).name for line in environment_requirements()]
    return [_interpreter_layer(), _packages_layer(tuple(asked), frozenset(less))]


@functools.cache
def _interpreter_layer() -> Path:
    """The interpreter at its own path, which is python3."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    real = Path(os.path.realpath(sys.executable))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter"}
    files = [real, *_walk(stdlib, skipped)]
    wheels = Path("/usr/share/python-wheels")  # Debian keeps ensurepip's here
    with _layer("interpreter") as (path, tar):
        for file in [*files, *_libraries(files), *_walk(wheels, set())]:
            _add(tar, file, file)
        _add_link(tar, Path("/usr/bin/python3"), real)
        _add_text(tar, Path("/etc/passwd"), _PASSWD)
        _add_directory(tar, Path("/tmp"), 0o1777)
    return path


@functools.cache
def _packages_layer(names: tuple[str, ...], less: frozenset[str] = frozenset()) -> Path:
    """A venv at ``ENV`` with the named distributions and what they require."""
    site = ENV / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    files = {
        site / entry: Path(str(distribution.locate_file(entry)))
        for name, distribution in sorted(_closure(names).items())
        if name not in less
        for entry in distribution.files or ()
        if entry.parts[0] != ".." and "tests" not in entry.parts
    }
    real = Path(os.path.realpath(sys.executable))
    with _layer("packages") as (path, tar):
        _add_text(tar, ENV / "pyvenv.cfg", f"home = {real.parent}\n")
        _add_link(tar, ENV / "bin/python", real)
        for place, file in files.items():
            if file.is_file():  # a RECORD also names bytecode that was never made
                _add(tar, file, place)
        for library in _libraries(files.values()):
            _add(tar, library, library)
    return path


def _closure(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Returns the named distributions and all that they require, as installed here."""
    found: dict[str, metadata.Distribution] = {}
    wanted = list(names)
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _libraries(files: Iterable[Path]) -> list[Path]:
    """Returns the shared libraries outside the virtual environment that the files need."""
    binaries = [str(file) for file in files if ".so" in file.suffixes or os.access(file, os.X_OK)]
    asked = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False)
    found = {Path(os.path.normpath(name)) for name in _LIBRARY.findall(asked.stdout)}
    return sorted(path for path in found if not path.is_relative_to(sys.prefix))


def _walk(directory: Path, skipped: set[str]) -> Iterator[Path]:
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in skipped]
        yield from (Path(parent, name) for name in files)


@functools.cache
def _debian_layer(requirements: tuple[str, ...]) -> Path:
    with tempfile.TemporaryDirectory(prefix="adroit-debian-") as name:
        root = Path(name) / "root"
        packages = "python3,python3-venv"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        _in_chroot(root, "python3", "-m", "venv", str(ENV))
        # By this machine's pip, which knows the way to its package index.
        site = next((root / ENV.relative_to("/") / "lib").glob("python3.*")) / "site-packages"
        version = site.parent.name.removeprefix("python")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        pins = root / "tmp/pins"
        pins.write_text("\n".join(_PIN.findall(LOCK.read_text())))
        options = [f"--python-version={version}", f"--target={site}", f"--constraint={pins}"]
        subprocess.run([*pip, *options, *requirements], check=True)
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        with _layer("debian") as (path, tar):
            tar.add(root, arcname=".", filter=_without_devices)
    return path


def _in_chroot(root: Path, *command: str) -> None:
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    subprocess.run(["chroot", str(root), *command], check=True, env=environ)


def _without_devices(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.isdev() else member


@contextmanager
def _layer(name: str) -> Iterator[tuple[Path, tarfile.TarFile]]:
    """Gives a tar to fill, in a directory that lasts as long as this process."""
    path = Path(_scratch().name) / f"{name}-{len(os.listdir(_scratch().name))}.tar"
    with tarfile.open(path, "w") as tar:
        yield path, tar


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="adroit-env-image-")


def _add(tar: tarfile.TarFile, file: Path, place: Path) -> None:
    found = file.stat()
    member = _member(place, 0o755 if found.st_mode & 0o111 else 0o644)
    member.size, member.mtime = found.st_size, int(found.st_mtime)  # bytecode names its source's
    with file.open("rb") as stream:
        tar.addfile(member, stream)


def _add_text(tar: tarfile.TarFile, place: Path, text: str) -> None:
    member = _member(place, 0o644)
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text.encode()))


def _add_link(tar: tarfile.TarFile, place: Path, target: Path) -> None:
    member = _member(place, 0o777)
    member.type, member.linkname = tarfile.SYMTYPE, str(target)
    tar.addfile(member)


def _add_directory(tar: tarfile.TarFile, place: Path, mode: int) -> None:
    member = _member(place, mode)
    member.type = tarfile.DIRTYPE
    tar.addfile(member)


def _member(place: Path, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(str(place).lstrip("/"))
    member.mode = mode
    return member


def _push(server: RegistryServer, reference: str, tars: Sequence[Path]) -> Digest:
    name, _, tag = reference.rpartition(":")
    repository = images(server, name)
    layers = []
    for tar in tars:
        with tar.open("rb") as stream:
            digest = Digest("sha256:" + hashlib.file_digest(stream, "sha256").hexdigest())
        file = LocalFile(str(tar), tar.stat().st_size)
        layers.append(Descriptor(LAYER_MEDIA_TYPE, digest, file.size_bytes))
        repository.put_blob(layers[-1], Concatenation([file]))
    config_bytes = canonical_json(
        {
            "os": "linux",
            "architecture": _ARCHITECTURES[platform.machine()],
            "config": {"Env": _ENVIRONMENT},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    config = Descriptor(CONFIG_MEDIA_TYPE, Digest.of(config_bytes), len(config_bytes))
    repository.put_blob(config, Inline(config_bytes))
    manifest_bytes = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": config.as_dict(),
            "layers": [layer.as_dict() for layer in layers],
        }
    )
    manifest = Descriptor(MANIFEST_MEDIA_TYPE, Digest.of(manifest_bytes), len(manifest_bytes))
    repository.put_manifest(manifest, manifest_bytes)
    repository.replace_tag(Tag(tag), manifest, manifest_bytes)
    return manifest.digest
