"""adroit.serving.scoring: bytes to answer, in process; the comparison with MLflow's server is in
test_serving_server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adroit.serving import Bundle
from adroit.serving.outputs import OutputError
from adroit.serving.scoring import Reply, Scorer
from tests.support.serving_bundles import bundle, loader_model, predicting

DOUBLES = '[{"type": "double", "required": true}]'
TWO_ROWS = '{"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}'


def scorer(tmp_path: Path, predict: Any, *, signature: bool = True, **options: Any) -> Scorer:
    model = loader_model(predicting("pass"), outputs=DOUBLES if signature else None)
    found = Bundle.read(bundle(tmp_path / "b", model))

    class Mine:
        def load(self, bundle: Bundle) -> None: ...

        def predict(self, inputs: Any, params: Any = None) -> Any:
            return predict(inputs)

    return Scorer(Mine(), found, **options)


def ask(found: Scorer, body: str = TWO_ROWS, content_type: str | None = "application/json") -> Any:
    answer = found.answer(body.encode(), content_type)
    return answer, json.loads(answer.body) if answer.media_type == "application/json" else None


def test_the_handler_gets_what_mlflow_parses_and_its_outputs_are_the_answer(tmp_path: Path) -> None:
    seen: list[Any] = []
    found = scorer(tmp_path, lambda inputs: list(inputs["x"] * 2), observe=seen.append)
    answer, said = ask(found)
    assert (answer.status, said) == (200, {"predictions": [2, 4]})
    assert str(seen[0]["x"].dtype) == "int64"  # as the signature says


def test_a_request_that_is_refused_is_not_observed(tmp_path: Path) -> None:
    seen: list[Any] = []
    answer, said = ask(scorer(tmp_path, list, observe=seen.append), '{"rows": []}')
    assert (answer.status, answer.error_code, seen) == (400, "BAD_REQUEST", [])
    assert "exactly one of the input fields" in said["message"]


def _raises(error: BaseException) -> Any:
    def predict(inputs: Any) -> Any:
        raise error

    return predict


def test_what_a_model_raises_is_a_400_with_its_words_and_without_its_trace(tmp_path: Path) -> None:
    error = ValueError("age is negative")
    answer, said = ask(scorer(tmp_path, _raises(error)))
    assert (answer.status, said["error_code"]) == (400, "BAD_REQUEST")
    assert said["message"].endswith("ValueError: age is negative")
    assert "Traceback" not in answer.body.decode()
    assert "test_scoring.py" not in answer.body.decode()
    assert answer.error is error


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Unprintable()])
def test_nothing_a_model_raises_gets_past_the_answer(tmp_path: Path, error: BaseException) -> None:
    answer, said = ask(scorer(tmp_path, _raises(error)))
    assert answer.status in (400, 500)
    assert said["error_code"] in ("BAD_REQUEST", "INTERNAL_ERROR")


def test_outputs_that_are_no_json_are_a_500_that_says_so(tmp_path: Path) -> None:
    answer, said = ask(scorer(tmp_path, lambda inputs: {1, 2}))
    assert (answer.status, said["error_code"]) == (500, "INTERNAL_ERROR")
    assert "set" in said["message"]


def test_a_request_without_a_content_type_is_a_415(tmp_path: Path) -> None:
    answer, _ = ask(scorer(tmp_path, list), content_type=None)
    assert (answer.status, answer.error_code) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_the_input_example_is_predicted_on_where_there_is_one(tmp_path: Path) -> None:
    asked: list[Any] = []
    assert scorer(tmp_path, lambda inputs: asked.append(inputs) or [1]).predict_example()
    assert list(asked[0]["x"]) == [1, 2]


def test_an_example_whose_outputs_cannot_be_sent_fails(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="set"):
        scorer(tmp_path, lambda inputs: {1}).predict_example()


def test_an_answer_is_a_value() -> None:
    assert Reply(200, b"x") == Reply(200, b"x", "application/json", None, None)
