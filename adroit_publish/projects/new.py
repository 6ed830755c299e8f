"""A new project: config.yaml, model, flow and test; and its flavor in flavors.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from keyword import iskeyword
from string import Template

from adroit_publish.checkout import Checkout
from adroit_publish.config.conda_envs import find_conda_env
from adroit_publish.config.environment_yml import parse_environment
from adroit_publish.config.flavors_entries import add_flavor
from adroit_publish.config.names import name_problem
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.writeback.flavors_file import edit_file

KINDS = {"sklearn": "scikit-learn", "lightgbm": "lightgbm", "torch": "torch", "pyfunc": "pandas"}
"""What a model can be made from, and the package that its conda env has to hold."""


@dataclass(frozen=True)
class NewProject:
    """What was written.

    Attributes:
        flavor: Its name in flavors.yaml, which is the model's and the directory's too.
        directory: Relative to the checkout's root.
        files: Relative to the directory.
    """

    flavor: str
    directory: str
    files: tuple[str, ...]
    conda_env: str


def new_project(checkout: Checkout, name: str, kind: str, env: str | None = None) -> NewProject:
    """Writes a project that trains and publishes as it is, and its flavor.

    Args:
        name: Of the model, the directory and the flavor.
        kind: One of ``KINDS``.
        env: A conda env; by default the first that holds what the kind needs.

    Raises:
        ConfigError: The name cannot be a package's, or no env holds what the kind needs.
        RefusedError: There is such a project, or such a flavor; nothing was written.
    """
    if name_problem(name, ascii_only=True) or not name.isidentifier() or iskeyword(name):
        raise ConfigError(
            "Not a valid name for a project.",
            got=name,
            wanted="a name that Python can import, such as my_model",
        )
    directory = checkout.root / "projects" / name
    if name in checkout.flavors or directory.exists():
        raise RefusedError(
            f"There is a {'flavor' if name in checkout.flavors else 'project'} {name} already.",
            where="flavors.yaml" if name in checkout.flavors else directory,
            next_step=f"python -m adroit_publish new {name}_2 --from {kind}",
        )
    env = env or _env_that_holds(checkout, KINDS[kind])
    find_conda_env(checkout.conda_envs, env)
    fields = {"config": f"projects/{name}/config.yaml", "conda_env": env, "version": ""}
    add = partial(add_flavor, flavor=name, fields=fields)
    add(checkout.flavors_bytes)  # refused before anything is written
    flow = "".join(part.capitalize() for part in name.split("_"))
    texts = {
        "config.yaml": _filled("config.yaml", name, flow),
        "model.py": _filled(f"model_{kind}.py", name, flow),
        "flow.py": _filled("flow.py", name, flow),
        "tests/test_model.py": _filled("test_model.py", name, flow),
    }
    for path, text in texts.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    edit_file(checkout.flavors_file, add)
    return NewProject(name, f"projects/{name}", tuple(texts), env)


def _env_that_holds(checkout: Checkout, package: str) -> str:
    for env in checkout.conda_envs.values():
        listing = checkout.environment(env)
        if listing is not None and env.environment is not None:
            asked = parse_environment(listing, env.environment)
            if any(spec.startswith(package) for spec in (*asked.pip, *asked.conda)):
                return env.name
    raise ConfigError(
        f"No conda env holds {package}.",
        where="conda_envs.yaml",
        got=", ".join(checkout.conda_envs) or "no env",
        next_step=f"add an env whose environment.yml lists {package}, or name one with --env",
    )


def _filled(template: str, name: str, flow: str) -> str:
    text = (
        files("adroit_publish.projects").joinpath("templates", f"{template}.txt").read_text("utf-8")
    )
    return Template(text).substitute(name=name, flow=flow)
