"""A FastAPI service whose model is watched. Works as it stands under uvicorn, and under gunicorn with preloading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import zmon


class Flowers(BaseModel):
    """A request: rows of four measurements, and an id for each, so that their labels can be found later."""

    rows: list[list[float]]
    ids: list[str] | None = None


data = load_iris()
bare = LogisticRegression(max_iter=500).fit(data.data, data.target_names[data.target])  # yours comes from a file
publisher = zmon.Publisher("iris", features=[name.removesuffix(" (cm)") for name in data.feature_names])
model = zmon.watch(bare, publisher)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """uvicorn ends by the signal it was sent, and runs no exit handlers: deliver the last rows here."""
    yield
    publisher.close()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(flowers: Flowers) -> dict[str, list[str]]:
    """The most probable species of each row."""
    with publisher.context(ids=flowers.ids):
        probabilities = model.predict_proba(flowers.rows)
    return {"species": [str(model.classes_[best]) for best in probabilities.argmax(axis=1)]}


@app.get("/stats")
def stats() -> dict[str, int | bool]:
    """What this worker's publisher has done."""
    now = publisher.stats
    return {"published": now.published, "acknowledged": now.acknowledged, "connected": now.connected}
