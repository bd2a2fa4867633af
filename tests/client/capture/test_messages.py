"""What the log says of a call that cannot be used whole: the argument, what was passed, and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.capture import capture, convert
from tests.support.frameworks import require

P = np.array([[0.9, 0.1], [0.2, 0.8]])
NAMES = ("no", "yes")
REMEDY = "; pass None where the label is unknown"

CALLS: dict[str, tuple[dict[str, Any], str, str]] = {
    "prediction": ({"predictions": ["no", "maybe"]}, "prediction_unknown", "prediction 'maybe' is not one of"),
    "prediction index": ({"predictions": [0, 7]}, "prediction_index", "prediction 7 is not an index of the classes"),
    "no prediction": ({"predictions": ["no", None]}, "predictions_nan", "prediction None is not one of the classes"),
    "label": ({"labels": ["no", "zz"]}, "label_unknown", f"'zz' is not one of the classes ['no', 'yes']{REMEDY}"),
    "label index": ({"labels": [0, -1]}, "label_index", f"-1 is not an index of the classes ['no', 'yes']{REMEDY}"),
    "one label": ({"labels": "no"}, "labels_shape", "labels are a single str"),
    "one-hot": ({"labels": [[1, 0], [1, 1]]}, "label_one_hot", "label [1, 1] is not a row with a single 1"),
    "an object": ({"inputs": object()}, "inputs_shape", "inputs are a single object"),
    "segments": ({"segments": ["a", "b"]}, "segments_invalid", "segments are a list; expected a dict"),
    "no segments": ({"segments": {}}, "segments_invalid", "segments are empty; expected a dict"),
    "a segment": ({"segments": {"c": "DE"}}, "segments_invalid", "segment 'c': segments are a single str"),
    "a huge number": ({"inputs": {"a": [10**400, 1]}}, "inputs_dtype", "is not a number that a float can hold"),
    "a type": ({"inputs": {"a": [object(), object()]}}, "inputs_dtype", "holds values of type object; declare kinds"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_message_names_the_value_and_the_remedy(name: str) -> None:
    given, reason, message = CALLS[name]
    made = convert(capture(NAMES), **({} if "predictions" in given else {"probabilities": P}), **given)
    (loss,) = made.rejected + made.degraded
    assert loss.reason == reason
    assert message in loss.detail


def test_a_frame_of_segments_is_no_dict() -> None:
    pandas = require("pandas")
    made = convert(capture(NAMES), P, segments=pandas.DataFrame({"country": ["DE", "FR"]}))
    assert [(each.reason, each.detail) for each in made.degraded] == [
        ("segments_invalid", "segments are a DataFrame; expected a dict of 1 to 8 names to columns")
    ]


def test_a_vector_of_another_width_is_told_so() -> None:
    one = capture(NAMES, kinds={"v": "vector"})
    made = convert(one, P, inputs={"v": [[1, 2], [3, 4, 5]]})
    assert "holds vectors of one width, and [3, 4, 5] has another" in made.degraded[0].detail


def test_columns_that_nothing_selects_are_named() -> None:
    made = convert(capture(NAMES, include=["amuont"]), P, inputs={"amount": [1, 2]})
    assert made.degraded[0].detail == "features, include and exclude leave none of the columns ['amount']"


def test_sets_of_classes_that_are_not_known_are_predictions_and_no_probabilities() -> None:
    one = capture(NAMES, task="multilabel")
    assert [(each.reason, each.rows) for each in convert(one, predictions=[["no"], ["zz"]]).rejected] == [
        ("prediction_unknown", 1)
    ]
    both = convert(one, np.array([[0.9, np.nan], [0.2, 0.8]]), predictions=[["no"], ["no"]])
    assert [(each.reason, each.rows) for each in both.rejected] == [("probabilities_nan", 1)]
    labels = convert(one, P, labels=[["no"], ["zz"]]).degraded
    assert (labels[0].reason, labels[0].rows) == ("label_unknown", 1)
    assert labels[0].detail.startswith("label ['zz'] holds something other than 0, 1 and names of the classes")


def test_classes_given_as_bytes_are_matched_with_strings_and_bytes() -> None:
    one = capture([b"no", b"yes"])
    assert not convert(one, P, labels=["no", "yes"]).degraded
    assert not convert(one, P, labels=[b"no", b"yes"]).degraded
    assert one.classes == NAMES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["a"]}, "kinds must map names of features to kinds, got ['a']"),
        ({"tags": ["a"]}, "tags must map names to values, got ['a']"),
        ({"tags": {str(i): "x" for i in range(65)}}, "65 tags given; at most 64 are allowed"),
        ({"threshold": "0.5"}, "threshold is '0.5'; it must be a number"),
        ({"sample_rate": None}, "sample_rate is None; it must be a number"),
        ({"buffer_bytes": 1e8}, "buffer_bytes is 100000000.0; it must be an int of at least 65536"),
        ({"classes": ["a"]}, "1 classes given; at least 2 are needed"),
    ],
    ids=str,
)
def test_a_wrong_argument_of_the_constructor_is_a_configuration_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zmon.ConfigurationError) as raised:
        zmon.Publisher("m", **options)
    assert message in str(raised.value)
