"""A Flask service whose model is watched."""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import zmon

data = load_iris()
bare = LogisticRegression(max_iter=500).fit(data.data, data.target_names[data.target])  # yours comes from a file
publisher = zmon.Publisher("iris", features=[name.removesuffix(" (cm)") for name in data.feature_names])
model = zmon.watch(bare, publisher)
app = Flask(__name__)


@app.post("/predict")
def predict() -> dict[str, Any]:
    """The most probable species of each row."""
    flowers = request.get_json()
    with publisher.context(ids=flowers.get("ids")):
        probabilities = model.predict_proba(flowers["rows"])
    return {"species": [str(model.classes_[best]) for best in probabilities.argmax(axis=1)]}
