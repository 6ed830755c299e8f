"""Small bundles for tests, laid out as the publisher lays them out for the sandbox."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
MLFLOW_HANDLER = "adroit.serving.mlflow_handler:MlflowHandler"

_MLMODEL = """
flavors:
  python_function:
    code: code
    env: {{conda: conda.yaml, virtualenv: python_env.yaml}}
    loader_module: {loader}
    python_version: 3.11.7
mlflow_version: 3.17.2
model_uuid: 65d6f5c2453842e0ae7549ffe9c1418b
utc_time_created: '2026-11-23 07:34:45.613952'
{extra}
"""

_EXAMPLE = """
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  serving_input_path: serving_input_example.json
  type: dataframe
"""
_ROWS = '{"columns": ["x"], "data": [[1], [2]]}'


def loader_model(
    loader: str,
    *,
    example: bool = True,
    outputs: str | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Returns the files of an MLflow model whose ``loader_module`` is the code ``loader``.

    Args:
        loader: Python that defines ``_load_pyfunc(path)``.
        example: Whether the model has an input example: two rows of the column ``x``.
        outputs: The signature's outputs, as MLflow's JSON; None for a model without signature.
        files: More files of the model directory.
    """
    extra = _EXAMPLE if example else ""
    if outputs is not None:
        inputs = '[{"type": "long", "name": "x", "required": true}]'
        extra += f"signature: {{inputs: '{inputs}', outputs: '{outputs}', params: null}}\n"
    return {
        "MLmodel": _MLMODEL.format(loader="test_loader", extra=extra),
        "code/test_loader.py": loader,
        "input_example.json": _ROWS,
        "serving_input_example.json": f'{{"dataframe_split": {_ROWS}}}',
        **(files or {}),
    }


def predicting(body: str) -> str:
    """Returns a loader whose model's ``predict(self, model_input)`` has the given body."""
    lines = "\n".join("        " + line for line in body.splitlines())
    return (
        "class Model:\n"
        "    def predict(self, model_input, params=None):\n"
        f"{lines}\n"
        "def _load_pyfunc(path):\n"
        "    return Model()\n"
    )


def bundle(
    root: Path,
    model: Mapping[str, str] | Path,
    *,
    source: Mapping[str, str] | None = None,
    class_path: str = MLFLOW_HANDLER,
    kwargs: Mapping[str, Any] | None = None,
    serve: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a bundle's layout to ``root`` and returns it.

    Args:
        root: A directory that does not exist.
        model: The model's files by path, or a directory that holds them.
        source: Files of source/ by path.
        class_path: The handler.
        kwargs: Its arguments; None for the model name alone.
        serve: The rest of the serve section.
    """
    for kind in ("model", "source", "runtime/adroit"):
        (root / kind).mkdir(parents=True)
    if isinstance(model, Path):
        shutil.copytree(model, root / "model", dirs_exist_ok=True)
    else:
        _write(root / "model", model)
    _write(root / "source", source or {})
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copy(REPOSITORY / "adroit/__init__.py", root / "runtime/adroit")
    shutil.copytree(REPOSITORY / "adroit/serving", root / "runtime/adroit/serving", ignore=ignored)
    handler = {"class_path": class_path, "kwargs": dict(kwargs or {"model_name": "tiny"})}
    record = {
        "schema": 1,
        "model_name": "tiny",
        "run_id": "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c",
        "files": {kind: _listed(root / kind) for kind in ("model", "runtime", "source")},
        "serve": {"handler": handler, **(serve or {})},
    }
    (root / "bundle.json").write_text(json.dumps(record))
    return root


def _write(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _listed(directory: Path) -> list[dict[str, Any]]:
    return [
        {
            "path": path.relative_to(directory).as_posix(),
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]
