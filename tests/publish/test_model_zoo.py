"""Every kind of MLflow model: in the sandbox, at the rollover's question, and by MLflow itself.

A kind is a Python program that saves one model to the directory it is given; it runs in a process
of its own, as a training job would. What is not installed is skipped by its name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from adroit_publish.evidence.endpoints import probe
from adroit_publish.gates.prediction import predict_in_sandbox
from adroit_publish.gates.replay import compare_outputs
from adroit_publish.gates.reporter import outputs_of
from tests.servers.live_servers import ask, mlflow_serving, serving
from tests.support.requirements import missing
from tests.support.serving_bundles import bundle

FRAME = """
    import numpy as np, pandas as pd
    X = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [0.5, 0.25, 4.0, 3.0]})
    label = pd.Series([0, 1, 0, 1], name="label")
"""
CHAT = """
    class Chat(mlflow.pyfunc.ChatModel):
        def predict(self, context, messages, params):
            from mlflow.types.llm import ChatCompletionResponse
            return ChatCompletionResponse.from_dict({
                "id": "1", "created": 1, "model": "echo",
                "choices": [{"index": 0, "finish_reason": "stop",
                             "message": {"role": "assistant", "content": messages[-1].content}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
"""
AGENT = """
    from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse
    class Agent(mlflow.pyfunc.ChatAgent):
        def predict(self, messages, context=None, custom_inputs=None):
            text = messages[-1].content
            return ChatAgentResponse(
                messages=[ChatAgentMessage(role="assistant", content=text, id="1")])
"""
RESPONSES = """
    from mlflow.types.responses import ResponsesAgentResponse
    class Agent(mlflow.pyfunc.ResponsesAgent):
        def predict(self, request):
            item = self.create_text_output_item(text="hello", id="1")
            return ResponsesAgentResponse(output=[item])
        def predict_stream(self, request):
            yield from ()
"""
ZOO = {
    "ChatModel": CHAT + "mlflow.pyfunc.save_model(path, python_model=Chat())",
    "ChatAgent": AGENT + "mlflow.pyfunc.save_model(path, python_model=Agent())",
    "ResponsesAgent": RESPONSES + "mlflow.pyfunc.save_model(path, python_model=Agent())",
    "type hints": """
    from typing import Any
    class Hinted(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{"doubled": row["x"] * 2} for row in model_input]
    mlflow.pyfunc.save_model(path, python_model=Hinted(), input_example=[{"x": 1}, {"x": 2}])
    """,
    "strings": """
    class Upper(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[str]) -> list[str]:
            return [text.upper() for text in model_input]
    mlflow.pyfunc.save_model(path, python_model=Upper(), input_example=["a", "b"])
    """,
    "models from code": FRAME
    + """
    code = path + ".py"
    open(code, "w").write(
        "import mlflow\\nclass M(mlflow.pyfunc.PythonModel):\\n"
        "    def predict(self, context, model_input, params=None):\\n"
        "        return model_input['x'] * (params or {}).get('times', 2)\\n"
        "mlflow.models.set_model(M())\\n")
    signature = mlflow.models.infer_signature(X, label, params={"times": 3})
    mlflow.pyfunc.save_model(
        path, python_model=code, input_example=(X, {"times": 3}), signature=signature)
    """,
    "loader_module": FRAME
    + """
    code = path + "-code"; os.makedirs(code)
    open(code + "/zoo_loader.py", "w").write(
        "class M:\\n    def predict(self, data):\\n        return data['x'].to_numpy() * 2\\n"
        "def _load_pyfunc(path):\\n    return M()\\n")
    mlflow.pyfunc.save_model(
        path, loader_module="zoo_loader", code_paths=[code + "/zoo_loader.py"], input_example=X)
    """,
    "tensors": """
    import numpy as np
    class Sums(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input.sum(axis=1)
    mlflow.pyfunc.save_model(
        path, python_model=Sums(), input_example=np.arange(6, dtype="float32").reshape(2, 3))
    """,
    "sklearn": FRAME
    + """
    from sklearn.linear_model import LogisticRegression
    import mlflow.sklearn
    model = LogisticRegression().fit(X, label)
    mlflow.sklearn.save_model(
        model, path, input_example=X, signature=mlflow.models.infer_signature(X, label),
        serialization_format="cloudpickle")
    """,
    "sklearn, y in a table": FRAME
    + """
    from sklearn.linear_model import LinearRegression
    import mlflow.sklearn
    model = LinearRegression().fit(X, label)
    signature = mlflow.models.infer_signature(X, label.to_frame())
    mlflow.sklearn.save_model(
        model, path, input_example=X, signature=signature, serialization_format="cloudpickle")
    """,
    "lightgbm": FRAME
    + """
    import lightgbm, mlflow.lightgbm
    model = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=1).fit(X, label)
    mlflow.lightgbm.save_model(
        model, path, input_example=X, signature=mlflow.models.infer_signature(X, label))
    """,
    "xgboost": FRAME
    + """
    import xgboost, mlflow.xgboost
    model = xgboost.XGBClassifier(n_estimators=2).fit(X, label)
    mlflow.xgboost.save_model(
        model, path, input_example=X, signature=mlflow.models.infer_signature(X, label))
    """,
    "catboost": FRAME
    + """
    import catboost, mlflow.catboost
    model = catboost.CatBoostClassifier(iterations=2, verbose=False).fit(X, label)
    mlflow.catboost.save_model(
        model, path, input_example=X, signature=mlflow.models.infer_signature(X, label))
    """,
    "statsmodels": FRAME
    + """
    import statsmodels.api as sm, mlflow.statsmodels
    mlflow.statsmodels.save_model(sm.OLS(label, X).fit(), path, input_example=X)
    """,
    "onnx": """
    import numpy as np, onnx, mlflow.onnx
    from onnx import TensorProto, helper
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [x], [y])
    example = np.array([[1, -2]], dtype="float32")
    mlflow.onnx.save_model(helper.make_model(graph), path, input_example=example)
    """,
    "torch": """
    import numpy as np, torch, mlflow.pytorch
    mlflow.pytorch.save_model(
        torch.nn.Linear(2, 1), path, serialization_format="pickle",
        input_example=np.array([[1, -2]], dtype="float32"))
    """,
    "prophet": """
    import pandas as pd, mlflow.prophet
    from prophet import Prophet
    days = pd.date_range("2026-01-01", periods=30)
    model = Prophet(uncertainty_samples=0).fit(  # else it draws its bounds anew each time
        pd.DataFrame({"ds": days, "y": range(30)}))
    mlflow.prophet.save_model(model, path, input_example=pd.DataFrame({"ds": days[:3]}))
    """,
}
NEEDS = {name: name.partition(",")[0] for name in ZOO if name[0].islower()}
NOT_ASKED = {"type hints", "strings", "models from code", "loader_module", "tensors"}


@pytest.mark.parametrize("kind", ZOO)
def test_a_kind_of_model_is_served_as_mlflow_serves_it(kind: str, tmp_path: Path) -> None:
    package = None if kind in NOT_ASKED else NEEDS.get(kind)
    if package and find_spec(package) is None:
        missing(f"{package} is not installed: it is not in requirements.lock (make zoo)")
    model = saved(ZOO[kind], tmp_path / "model")
    root = bundle(tmp_path / "bundle", model)
    seen = predict_in_sandbox(root, allow_plain=True)
    assert (seen.predicted, seen.served, seen.repeats) == (True, True, True)
    question = (model / "serving_input_example.json").read_bytes()

    def matches(outputs: object) -> str | None:
        replay = compare_outputs(seen.outputs, outputs, 1e-6)
        return None if replay.same else "; ".join(replay.lines())

    with mlflow_serving(model) as url:
        answer = ask(f"{url}/invocations", question, {"Content-Type": "application/json"})
        assert answer.status == 200, answer.body
        assert matches(outputs_of(answer.body)) is None
    with serving(root) as server:
        bundle_id = ask(f"{server.url}/bundle").json["bundle_id"]
        assert probe([server.url], bundle_id, question, matches).problems == ()


def saved(program: str, path: Path) -> Path:
    """Runs a program that saves a model, and returns where it is."""
    head = f"import os, mlflow, mlflow.pyfunc\npath = {str(path)!r}\n"
    lines = [line.removeprefix("    ") for line in program.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", head + "\n".join(lines)],
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": str(path.parent / "model-code")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path
