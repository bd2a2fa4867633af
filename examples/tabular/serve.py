"""Loans scored from numbers, truth values and categories, some of them missing, and told apart by channel."""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import zmon

NUMBERS = ["amount", "income"]
CATEGORIES = ["employment", "channel", "returning"]


def applications(rows: int, random: np.random.Generator) -> tuple[pd.DataFrame, pd.Series]:
    """Applications, and which of them were paid back."""
    income = random.lognormal(8, 0.4, rows)
    amount = random.lognormal(9, 0.6, rows)
    returning = random.random(rows) < 0.4
    frame = pd.DataFrame(
        {
            "amount": amount.round(2),
            "income": np.where(random.random(rows) < 0.15, np.nan, income),  # not everybody says
            "employment": random.choice(["employed", "self-employed", None], rows, p=[0.6, 0.3, 0.1]),
            "returning": returning,
            "channel": pd.Categorical(random.choice(["app", "web", "branch"], rows, p=[0.5, 0.35, 0.15])),
        }
    )
    odds = 1.5 + 1.2 * returning - 0.5 * amount / income + random.logistic(0, 0.4, rows)
    return frame, pd.Series(np.where(odds > 0, "repaid", "default"))


def trained(random: np.random.Generator) -> Pipeline:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), CATEGORIES),
    )
    return make_pipeline(columns, LogisticRegression()).fit(*applications(2000, random))


def main(batches: int) -> None:
    random = np.random.default_rng(0)
    with zmon.Publisher("loans") as publisher:
        model = zmon.watch(trained(random), publisher)
        for _ in range(batches):
            rows, truth = applications(40, random)
            with publisher.context(labels=truth, segments={"channel": rows["channel"]}):
                model.predict_proba(rows)
            time.sleep(0.1)
        publisher.close(timeout=30)  # the last rows arrive, however slow the network is
        print(f"{publisher.stats.published} rows published")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
