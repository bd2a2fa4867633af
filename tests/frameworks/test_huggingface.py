"""Hugging Face: classification pipelines and models with logits, of a tiny random network and a tokenizer made here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]
LABELS = ["negative", "neutral", "positive"]
WORDS = ["good", "bad", "day", "night"]
TEXTS = [f"{first} {second}" for first in WORDS for second in WORDS]


@pytest.fixture(scope="module")
def transformers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield require("transformers")


def network(transformers: Any, labels: list[str] = LABELS, **options: Any) -> Any:
    """A random classifier of sixteen texts."""
    torch = require("torch")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, initializer_range=1.0, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)}, **options,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def tokenizer(transformers: Any) -> Any:
    tokenizers = require("tokenizers")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def bare(transformers: Any, tokenizer: Any) -> Any:
    return transformers.pipeline("text-classification", model=network(transformers), tokenizer=tokenizer)


def matrix(results: Any) -> Any:
    """Scores in the order of LABELS."""
    return np.array([[{each["label"]: each["score"] for each in row}[label] for label in LABELS] for row in results])


def test_scores_of_all_classes_give_the_points_of_publishing_by_hand(bare: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=LABELS)
    model = zmon.watch(bare, pair.watched)
    with pair.at_once():
        given = model(TEXTS, top_k=None)
        one = model(TEXTS[5], top_k=None)
    expected = bare(TEXTS, top_k=None)
    assert given == expected
    assert one == bare(TEXTS[5], top_k=None)
    for rows in (expected, [one]):
        pair.by_hand(matrix(rows))
    pair.same("max_prediction_proba", "prediction_freq")
    some = TEXTS[:4]
    overhead("transformers pipeline, 4 texts", lambda: bare(some, top_k=None), lambda: model(some, top_k=None), 10)


def test_the_highest_score_is_published_as_a_label(bare: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=["positive", "neutral", "negative"])
    model = zmon.watch(bare, pair.watched)
    with pair.at_once():
        given = model(TEXTS)
        two = model(TEXTS, top_k=2)
        one = model(TEXTS[3])
        some = model.predict(TEXTS[:4])
        whole = zmon.watch(bare, pair.watched, output="label")(TEXTS, top_k=None)
    assert given == bare(TEXTS)
    assert some == bare.predict(TEXTS[:4])
    assert len({each["label"] for each in given}) > 1
    for rows in (given, [row[0] for row in two], one, some, [row[0] for row in whole]):
        pair.by_hand(predictions=[row["label"] for row in rows])
    pair.same("prediction_freq")


def test_placeholders_stand_in_the_order_of_the_classes(transformers: Any, tokenizer: Any, publisher: Make) -> None:
    labels = ["LABEL_0", "LABEL_1", "LABEL_2"]
    bare = transformers.pipeline("text-classification", model=network(transformers, labels), tokenizer=tokenizer)
    pub = publisher(classes=["a", "b", "c"])
    kept: list[dict[str, Any]] = []
    pub.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    model = zmon.watch(bare, pub)
    top, every = model(TEXTS), model(TEXTS, top_k=None)
    assert kept[0]["predictions"].tolist() == ["abc"[labels.index(each["label"])] for each in top]
    assert kept[1]["probabilities"][:, 0].tolist() == [
        next(each["score"] for each in row if each["label"] == "LABEL_0") for row in every
    ]
    other = publisher(classes=["bad", "good", "neutral"])
    zmon.watch(transformers.pipeline("text-classification", model=network(transformers), tokenizer=tokenizer), other)(
        TEXTS
    )
    stats = settled(other)
    assert (stats.published, stats.rejected) == (0, {"classes_order": 16})


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_model_with_logits(return_dict: bool, transformers: Any, tokenizer: Any, twins: Callable[..., Twins]) -> None:
    torch = require("torch")
    bare = network(transformers)
    pair = twins(classes=["positive", "neutral", "negative"])
    model = zmon.watch(bare, pair.watched)
    encoded = tokenizer(TEXTS, return_tensors="pt")
    encoded.pop("token_type_ids", None)
    calls = [
        lambda each: each(**encoded, return_dict=return_dict),
        lambda each: each(encoded["input_ids"], return_dict=return_dict),
        lambda each: each(input_ids=encoded["input_ids"][:1], return_dict=return_dict),
    ]
    with torch.inference_mode(), pair.at_once():
        for call in calls:
            given, expected = (result.logits if return_dict else result[0] for result in (call(model), call(bare)))
            assert torch.equal(given, expected)
            logits = expected[:, [2, 1, 0]].numpy()
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            pair.by_hand(powers / powers.sum(axis=1, keepdims=True))
    assert not any("feature_value" in str(names) for names in pair.same("max_prediction_proba"))
    if return_dict:
        with torch.inference_mode():
            overhead("transformers model, 16 texts", lambda: bare(**encoded), lambda: model(**encoded), 50)


def test_several_labels_per_row(transformers: Any, tokenizer: Any, publisher: Make) -> None:
    bare = network(transformers, problem_type="multi_label_classification")
    pipeline = transformers.pipeline("text-classification", model=bare, tokenizer=tokenizer)
    for model in (bare, pipeline):
        with pytest.raises(zmon.ConfigurationError, match="task='multilabel'"):
            zmon.watch(model, publisher())
    pub = publisher(task="multilabel", classes=LABELS)
    given = zmon.watch(bare, pub)(**tokenizer(TEXTS, return_tensors="pt"))
    kept: list[dict[str, Any]] = []
    pub.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    scores = zmon.watch(pipeline, pub)(TEXTS, top_k=None)
    np.testing.assert_allclose(kept[0]["probabilities"], given.logits.sigmoid().detach().numpy(), rtol=1e-5)
    assert np.array_equal(kept[0]["probabilities"], matrix(scores))
    del pub.publish
    zmon.watch(pipeline, pub)(TEXTS)  # only the highest score of each text
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (16, {"output_missing": 16})
    regression = network(transformers, ["LABEL_0"], problem_type="regression")
    with pytest.raises(zmon.ConfigurationError, match="task='regression'"):
        zmon.watch(regression, publisher())
    pub = publisher(task="regression")
    given = zmon.watch(regression, pub)(**tokenizer(TEXTS, return_tensors="pt"))
    score = zmon.watch(transformers.pipeline("text-classification", model=regression, tokenizer=tokenizer), pub)(TEXTS)
    assert given.logits[:, 0].tolist() == pytest.approx([each["score"] for each in score], rel=1e-5)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (32, {})


def test_scores_that_are_logits(bare: Any, publisher: Make) -> None:
    pub = publisher(classes=LABELS)
    kept: list[dict[str, Any]] = []
    pub.publish = lambda *_, **named: kept.append(named)  # type: ignore[method-assign]
    zmon.watch(bare, pub)(TEXTS, top_k=None, function_to_apply="none")
    np.testing.assert_allclose(kept[0]["probabilities"], matrix(bare(TEXTS, top_k=None)), rtol=1e-5)


def test_what_cannot_be_published_is_said(
    bare: Any, transformers: Any, tokenizer: Any, publisher: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pub = publisher(classes=LABELS)
    features = transformers.pipeline("feature-extraction", model=bare.model.bert, tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING, "zmon"):
        for _ in range(2):
            assert len(list(zmon.watch(bare, pub)(text for text in TEXTS))) == 16
            assert len(zmon.watch(features, pub)(TEXTS)) == 16
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"output_missing": 32})
    lines = [record.getMessage() for record in caplog.records if record.name == "zmon"]
    assert sum("pass it a list" in line for line in lines) == 2, "one for each watched model"
    assert sum("feature-extraction returns no scores of labels" in line for line in lines) == 1
    encoded = tokenizer(TEXTS, return_tensors="pt")
    trained = zmon.watch(network(transformers).train(), pub)
    trained(**encoded)
    zmon.watch(bare.model.bert, pub)(**encoded)
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"output_missing": 48, "training_mode": 16})
    with pytest.raises(zmon.ConfigurationError, match="returns logits"):
        zmon.watch(bare.model, pub, output="proba")
