"""Small real checkouts to publish from, and really logged models to publish.

``trained_models`` logs a few models once for a test session; ``make_checkout`` makes a git
repository with one project and any number of flavors around them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

FLOW = Path(__file__).parents[2] / "publish_mlflow_model_flow.py"

DOUBLER = """
    import mlflow
    from mlflow.pyfunc import PythonModel

    class Doubler(PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input * 2

    mlflow.models.set_model(Doubler())
"""
SPY = """
    import mlflow, os
    from mlflow.pyfunc import PythonModel

    class Spy(PythonModel):
        def load_context(self, context):
            self.secret = os.environ["AWS_SECRET_ACCESS_KEY"]

        def predict(self, context, model_input, params=None):
            return model_input

    mlflow.models.set_model(Spy())
"""


@dataclass(frozen=True)
class Trained:
    """Runs in one tracking store.

    Attributes:
        tracking_uri: The store.
        good: Run ids of two runs whose models double their input.
        without_example: Run id of a model logged without an input example.
        spy: Run id of a model that reads a credential from the environment when it loads.
        weighty: Run id of a model with a file of 20 MiB.
    """

    tracking_uri: str
    good: tuple[str, str]
    without_example: str
    spy: str
    weighty: str


def train_models(directory: Path) -> Trained:
    """Logs the models of ``Trained`` to a sqlite store in ``directory``."""
    import mlflow
    import pandas as pd

    tracking_uri = f"sqlite:///{directory}/mlflow.db"
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.create_experiment("t", artifact_location=(directory / "a").as_uri())
    example = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})
    weights = directory / "weights.bin"
    weights.write_bytes(bytes(range(256)) * 81920)

    def log(code: str, **options: object) -> str:
        path = directory / f"code{len(list(directory.glob('code*')))}.py"
        path.write_text(dedent(code))
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.pyfunc.log_model(
                name="model", python_model=str(path), pip_requirements=["mlflow"], **options
            )
            mlflow.log_metric("accuracy", 0.5)
            mlflow.log_metric("diverged", float("nan"))  # which JSON cannot say
        return str(run.info.run_id)

    trained = Trained(
        tracking_uri,
        (log(DOUBLER, input_example=example), log(DOUBLER, input_example=example)),
        log(DOUBLER),
        log(SPY),
        log(DOUBLER, input_example=example, artifacts={"weights": str(weights)}),
    )
    mlflow.set_tracking_uri(None)
    return trained


def make_checkout(
    root: Path, tracking_uri: str, flavors: Mapping[str, str], *, target_lines: str = ""
) -> Path:
    """Makes a committed repository with the project ``doubler`` and returns ``root``.

    Args:
        root: A directory that does not exist yet.
        tracking_uri: Of the target ``local``.
        flavors: Version by flavor; an empty one is written as nothing.
        target_lines: Further TOML for adroit.toml.
    """
    project = root / "projects" / "doubler"
    project.mkdir(parents=True)
    (project / "config.yaml").write_text(
        dedent(
            """\
            model_name: doubler
            serve:
              handler:
                class_path: adroit.serving.mlflow_handler:MlflowHandler
                kwargs:
                  model_name: doubler
            verify:
              accept: ["unimported:projects"]   # edits of files that no model here imports
            """
        )
    )
    (project / "features.py").write_text("SCALE = 2\n")
    (root / "adroit.toml").write_text(
        dedent(
            f"""\
            default_target = "local"

            [targets.local]
            tracking_uri = "{tracking_uri}"
            bundles = "file:.adroit/bundles"
            sitevars = "file:.adroit/sitevars.json"
            """
        )
        + target_lines
    )
    (root / "environment.yml").write_text("dependencies: [python=3.11]\n")
    (root / "conda_envs.yaml").write_text("plain:\n  environment: environment.yml\n")
    (root / ".gitignore").write_text(".adroit/\n.metaflow/\n")
    entries = [
        f"{name}:\n  config: projects/doubler/config.yaml\n  conda_env: plain\n"
        f"  version: {version}   # of {name}\n"
        for name, version in flavors.items()
    ]
    (root / "flavors.yaml").write_text("# Flavors.\n\n" + "\n".join(entries))
    git(root, "init", "-q", "-b", "main")
    commit(root, "first")
    return root


def git(root: Path, *arguments: str) -> str:
    """Runs git in ``root`` as a test author and returns what it printed."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(root: Path, message: str) -> str:
    """Commits everything in ``root`` and returns the commit."""
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")


def clone_as_it_is(root: Path) -> Path:
    """Clones this checkout, with what is being worked on committed; returns ``root``."""
    ours = FLOW.parent
    git(ours, "clone", "-q", str(ours), str(root))
    changed = git(ours, "diff", "--name-only", "HEAD").splitlines()
    untracked = git(ours, "ls-files", "--others", "--exclude-standard").splitlines()
    for name in [*changed, *untracked]:
        if (ours / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((ours / name).read_bytes())
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "as it is")
    return root
