"""adroit.serving.mlflow_handler against a really saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adroit.serving import Bundle
from adroit.serving.mlflow_handler import MlflowHandler
from tests.support.serving_bundles import bundle, loader_model, predicting


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    inputs = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 1.0]})
    model = LinearRegression().fit(inputs, [1.0, 2.0, 5.0])
    root = tmp_path_factory.mktemp("saved")
    mlflow.sklearn.save_model(
        model,
        str(root / "model"),
        signature=infer_signature(inputs, model.predict(inputs)),
        input_example=inputs.head(2),
        pip_requirements=["scikit-learn"],
    )
    return Bundle.read(bundle(root / "bundle", root / "model"))


def test_it_predicts_what_the_model_predicts_by_column_name(saved: Bundle) -> None:
    handler = MlflowHandler("tiny", log_features_percent=0.1)
    handler.load(saved)
    swapped = pd.DataFrame({"b": [1.0], "a": [0.0], "not_asked_for": [9.0]})
    np.testing.assert_allclose(handler.predict(swapped), [1.0], atol=1e-9)


def test_inputs_that_do_not_fit_the_signature_are_refused(saved: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    handler = MlflowHandler("tiny")
    handler.load(saved)
    with pytest.raises(MlflowException, match="missing"):
        handler.predict(pd.DataFrame({"a": [0.0]}))


def test_it_shows_the_models_signature_and_input_example(saved: Bundle) -> None:
    handler = MlflowHandler("tiny")
    handler.load(saved)
    assert handler.signature is not None
    assert handler.signature.inputs.input_names() == ["a", "b"]
    assert list(handler.input_example["a"]) == [0.0, 1.0]


def test_a_model_without_signature_or_example_has_none(tmp_path: Path) -> None:
    files = loader_model(predicting("return [1]"), example=False)
    handler = MlflowHandler("tiny")
    handler.load(Bundle.read(bundle(tmp_path / "b", files)))
    assert handler.signature is None
    assert handler.input_example is None


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan"), "0.1", None, True])
def test_a_share_that_is_no_percentage_is_refused(percent: object) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        MlflowHandler("tiny", log_features_percent=percent)  # type: ignore[arg-type]


@pytest.mark.parametrize("percent", [0, 0.1, 100])
def test_a_percentage_is_kept_as_it_is(percent: float) -> None:
    assert MlflowHandler("tiny", log_features_percent=percent).log_features_percent == percent


def test_predicting_before_loading_is_a_misuse() -> None:
    with pytest.raises(RuntimeError, match="load"):
        MlflowHandler("tiny").predict([1])
