"""A model on this disk in MLflow's form, whatever kind it is: what is checked and then logged.

| what ``log_model`` is given | how it is saved |
|---|---|
| a PythonModel class that can be imported, or a file with ``set_model`` | as code, no pickle |
| a PythonModel instance, or a class of the flow's own file | MLflow's pickle of it |
| scikit-learn | skops, which holds no pickle |
| LightGBM, XGBoost, CatBoost, ONNX | their own formats, by MLflow |
| PyTorch | a graph where it can be traced, else a pickle: see ``torch_model`` |

A kind is told by the module of its class, so that none of these packages has to be installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from adroit.training.code_paths import (
    CodePath,
    check_imports,
    is_own,
    modules_in_pickles,
    stage_code,
)
from adroit.training.errors import TrainingError
from adroit.training.torch_model import evaluating, graph_options, pickle_options

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.tracking import MlflowClient

_FLAVORS = {
    # Package of the class -> MLflow's flavor and its argument; those that build on others first.
    "xgboost": ("mlflow.xgboost", "xgb_model"),
    "lightgbm": ("mlflow.lightgbm", "lgb_model"),
    "catboost": ("mlflow.catboost", "cb_model"),
    "onnx": ("mlflow.onnx", "onnx_model"),
    "torch": ("mlflow.pytorch", "pytorch_model"),
    "sklearn": ("mlflow.sklearn", "sk_model"),
}


@dataclass(frozen=True)
class SavedModel:
    """A model in a directory, in MLflow's form.

    Attributes:
        directory: MLmodel and everything beside it.
    """

    directory: Path

    def log(self, client: MlflowClient, experiment_id: str, run_id: str, name: str) -> str:
        """Logs it as a model of a run, with the run's parameters and metrics; returns its id.

        By a client and not by ``Model.log``, which takes store, experiment and active run from the
        process: other threads have theirs there.
        """
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.models import Model

        logged = client.get_run(run_id).data
        model_id = client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, params=dict(logged.params)
        ).model_id
        try:
            client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
            history = [
                m for name in logged.metrics for m in client.get_metric_history(run_id, name)
            ]
            metrics = [
                Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id)
                for m in history
                if m.step == 0 and m.model_id is None
            ]
            client.log_batch(run_id, metrics=metrics)
            described = Model.load(str(self.directory))
            described.run_id, described.model_id, described.model_uuid = run_id, model_id, model_id
            described.artifact_path = client.get_logged_model(model_id).artifact_location
            described.save(str(self.directory / "MLmodel"))
            client.log_model_artifacts(model_id, str(self.directory))
        except BaseException:
            client.finalize_logged_model(model_id, "FAILED")
            raise
        client.finalize_logged_model(model_id, "READY")
        return str(model_id)


@dataclass(frozen=True)
class _Form:
    """How a model is saved.

    Attributes:
        flavor: The module of MLflow with its ``save_model``.
        options: That function's arguments of this kind alone.
        start: Modules and files that loading the model begins with.
    """

    flavor: str
    options: Mapping[str, Any]
    start: tuple[str, ...] = ()


def save_model(
    model: Any,
    scratch: Path,
    *,
    name: str,
    artifacts: Mapping[str, str | os.PathLike[str]] | None,
    code_path: CodePath | Sequence[CodePath] | None,
    example: Any,
    signature: ModelSignature | None,
    pip_requirements: Sequence[str] | None,
) -> SavedModel:
    """Saves a model of any kind with the code it needs.

    Args:
        model: See the module's table.
        scratch: An empty directory.
        name: The model's name, for messages.
        artifacts: File or directory by name, for a PythonModel's ``context.artifacts``.
        code_path: Packages' directories or files, which keep their import names.
        example: A few rows, kept as the input example; None for none.
        signature: MLflow's signature; None for none. A PythonModel's own, by type hints or as a
            chat or agent model, comes first.
        pip_requirements: What serving needs; None lets MLflow look for it, which takes a while.

    Raises:
        TrainingError: The model is of no kind that is known, or imports what is not there.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a log is no terminal
    staged, directory = scratch / "code", scratch / "model"
    staged.mkdir()
    tops = stage_code(code_path, staged)
    forms = _forms_of(model, scratch, name, artifacts or {}, example, signature)
    for form in forms:
        check_imports(staged, form.start, name)
        may_sign_itself = form.flavor == "mlflow.pyfunc"
        options = {
            "path": str(directory),
            "code_paths": [str(top) for top in tops] or None,
            "input_example": example,
            "signature": False if may_sign_itself else signature or False,
            "pip_requirements": None if pip_requirements is None else list(pip_requirements),
        }
        try:
            with _told(name), evaluating(model):
                import_module(form.flavor).save_model(**options | dict(form.options))
            break
        except Exception as error:
            if form is forms[-1]:
                raise
            reason = str(error).strip().partition("\n")[0][:200]
            print(f"torch.export cannot trace {name}, it is pickled: {reason}", file=sys.stderr)
            rmtree(directory, ignore_errors=True)
    if may_sign_itself and signature is not None:
        _sign(directory, signature)
    check_imports(staged, modules_in_pickles(directory), name)
    return SavedModel(directory)


def _sign(directory: Path, signature: ModelSignature) -> None:
    from mlflow.models import Model

    saved = Model.load(str(directory))
    if saved.signature is None:
        saved.signature = signature
        saved.save(str(directory / "MLmodel"))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Tells that a model, or its input example, cannot be saved."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, TypeError, ValueError) as error:  # as of json, for the example
        raise TrainingError(
            "MLflow cannot save this model.",
            where=name,
            got=str(error).strip()[:500],
            next_step="mend the model, or pass X_test in another form",
        ) from error


def _forms_of(
    model: Any,
    scratch: Path,
    name: str,
    artifacts: Mapping[str, str | os.PathLike[str]],
    example: Any,
    signature: ModelSignature | None,
) -> list[_Form]:
    """Returns how a model can be saved, the best first; the last is the one that has to work."""
    if isinstance(model, str | os.PathLike):
        return [_python(str(model), artifacts, (str(model),))]
    own = _own_modules(model if isinstance(model, type) else type(model))
    if _is_python_model(model):
        if isinstance(model, type):
            return [_from_class(model, scratch, artifacts, own)]
        return [_python(model, artifacts, own)]
    if artifacts:
        raise TrainingError(
            "Only a PythonModel can have artifacts.",
            where=name,
            got=f"{_kind(model)} with artifacts={sorted(artifacts)}",
            next_step="wrap it in a PythonModel that loads the model and the artifacts from its "
            "context",
        )
    for package, (flavor, argument) in _FLAVORS.items():
        if any(base.__module__.partition(".")[0] == package for base in type(model).__mro__):
            if package == "torch":
                graph = graph_options(model, example, signature)
                pickled = _Form(flavor, {argument: model} | dict(pickle_options(signature)), own)
                traced = _Form(flavor, {argument: model} | dict(graph or {}))
                return [traced, pickled] if graph else [pickled]
            options = {argument: model}
            if package == "sklearn":
                trusted = _trusted_types(model)
                own += tuple(t.rpartition(".")[0] for t in trusted if is_own(t.rpartition(".")[0]))
                options |= {"serialization_format": "skops", "skops_trusted_types": trusted}
            return [_Form(flavor, options, own)]
    raise TrainingError(
        "A model of this kind cannot be logged.",
        where=name,
        got=_kind(model),
        wanted="a scikit-learn, LightGBM, XGBoost, CatBoost, PyTorch or ONNX model, or an MLflow "
        "PythonModel",
        next_step="wrap it in a class that inherits from mlflow.pyfunc.PythonModel",
    )


def _from_class(
    model: type,
    scratch: Path,
    artifacts: Mapping[str, str | os.PathLike[str]],
    own: tuple[str, ...],
) -> _Form:
    """A class that can be imported by name is logged as code; MLflow runs it to load the model."""
    importable = model.__module__ != "__main__" and model.__qualname__.isidentifier()
    if not importable:
        return _python(model(), artifacts, own)
    served = scratch / "served.py"
    served.write_text(
        f"import mlflow\n\nfrom {model.__module__} import {model.__qualname__}\n\n"
        f"mlflow.models.set_model({model.__qualname__}())\n"
    )
    return _python(str(served), artifacts, own)


def _python(
    python_model: Any, artifacts: Mapping[str, str | os.PathLike[str]], start: tuple[str, ...]
) -> _Form:
    files = {name: str(path) for name, path in artifacts.items()}
    return _Form("mlflow.pyfunc", {"python_model": python_model, "artifacts": files or None}, start)


def _is_python_model(model: Any) -> bool:
    from mlflow.pyfunc.model import PythonModel

    return isinstance(model, PythonModel) or (
        isinstance(model, type) and issubclass(model, PythonModel)
    )


def _own_modules(kind: type) -> tuple[str, ...]:
    return tuple(dict.fromkeys(base.__module__ for base in kind.__mro__ if is_own(base.__module__)))


def _trusted_types(model: Any) -> list[str]:
    """Returns the types beyond skops' own list that loading the model has to build.

    They are what the modeler just trained with; the list goes into MLmodel, where it can be read.
    """
    from skops.io import dumps, get_untrusted_types

    return sorted(get_untrusted_types(data=dumps(model)))


def _kind(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"
