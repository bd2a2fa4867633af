"""MLflow's python_function models: frames, arrays and series, in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow advises on signatures
Make = Callable[..., zmon.Publisher]
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.fixture(scope="module")
def pandas() -> Any:
    return require("pandas")


@pytest.fixture(scope="module")
def mlflow() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        require("mlflow.pyfunc")
        yield require("mlflow")


@pytest.fixture
def loaded(mlflow: Any, tmp_path: Path) -> Callable[[Callable[[Any], Any]], Any]:
    """A model that answers with a function."""

    def load(answer: Callable[[Any], Any]) -> Any:
        class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
                return answer(model_input)

        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        mlflow.pyfunc.save_model(folder, python_model=Model(), pip_requirements=[])
        return mlflow.pyfunc.load_model(str(folder))

    return load


@pytest.mark.parametrize("container", ["array", "frame"])
def test_points_equal_those_of_publishing_by_hand(
    container: str, loaded: Any, pandas: Any, twins: Callable[..., Twins]
) -> None:
    rows = pandas.DataFrame(X, columns=list("abcd"))
    model = LogisticRegression(max_iter=500).fit(rows, NAMES[Y])

    def answer(frame: Any) -> Any:
        p = model.predict_proba(frame)
        return p if container == "array" else pandas.DataFrame(p, columns=NAMES)

    bare = loaded(answer)
    pair = twins(classes=list(NAMES))
    watched = zmon.watch(bare, pair.watched, output="proba")
    with pair.watched.context(timestamps=1_700_000_040.0, labels=NAMES[Y]):
        given = watched.predict(rows)
        watched.predict(data=rows)
    assert np.array_equal(np.asarray(given), np.asarray(bare.predict(rows)))
    assert type(given) is type(bare.predict(rows))
    assert watched.metadata.flavors == bare.metadata.flavors
    for _ in range(2):
        pair.by_hand(model.predict_proba(rows), rows, NAMES[Y])
    pair.same("accuracy", "feature_value", "max_prediction_proba")
    some = rows[:32]
    overhead(f"mlflow predict, {container}", lambda: bare.predict(some), lambda: watched.predict(some), 50)


def test_labels_and_values(loaded: Any, pandas: Any, publisher: Make) -> None:
    classifier, regression = LogisticRegression(max_iter=500).fit(X, NAMES[Y]), LinearRegression().fit(X, Y)
    pub = publisher(classes=list(NAMES))
    for answer in (classifier.predict, lambda rows: pandas.DataFrame({"class": classifier.predict(rows)})):
        zmon.watch(loaded(answer), pub, output="label").predict(X)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (300, {})
    pub = publisher(task="regression")
    for answer in (regression.predict, lambda rows: pandas.Series(regression.predict(rows))):
        assert len(zmon.watch(loaded(answer), pub).predict(X)) == 150
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (300, {})


def test_the_output_must_be_declared(
    loaded: Any, pandas: Any, publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bare = loaded(lambda rows: pandas.DataFrame({"class": ["setosa"] * len(rows), "score": 0.5}))
    with pytest.raises(zmon.ConfigurationError, match="pass output='label', 'proba'"):
        zmon.watch(bare, publisher())
    pub = publisher(classes=list(NAMES))
    zmon.watch(bare, pub, output="label").predict(X)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"multi_output": 150})
    assert "predict returns the columns ['class', 'score']; watch a function that returns one of them" in caplog.text
