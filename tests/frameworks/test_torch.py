"""PyTorch modules: tensors with gradients, half precision, training mode, containers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import zmon
from tests.support.frameworks import require
from tests.support.twins import Twins, overhead
from tests.support.waiting import settled

Make = Callable[..., zmon.Publisher]
X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def torch() -> Any:
    return require("torch")


@pytest.fixture(scope="module")
def model(torch: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Softmax(dim=1)).eval()


def test_points_equal_those_of_publishing_by_hand(torch: Any, model: Any, twins: Callable[..., Twins]) -> None:
    pair = twins(classes=3)
    watched = zmon.watch(model, pair.watched, output="proba")
    rows = torch.from_numpy(X)
    with pair.at_once():
        given = watched(rows)
    assert given.requires_grad, "as the model gave it"
    assert torch.equal(given, model(rows))
    pair.by_hand(given.detach().numpy(), X)
    pair.same("max_prediction_proba", "feature_value")
    overhead("torch module", lambda: model(rows[:32]), lambda: watched(rows[:32]))


def test_it_behaves_as_the_original(torch: Any, model: Any, publisher: Make) -> None:
    pub = publisher(classes=3)
    watched = zmon.watch(model, pub)
    assert isinstance(watched, torch.nn.Module)
    assert len(watched) == 3
    assert watched[0] is model[0]
    assert list(watched.state_dict()) == list(model.state_dict())
    assert watched.to("cpu") is watched
    assert type(copy.deepcopy(watched)) is type(pickle.loads(pickle.dumps(watched))) is torch.nn.Sequential
    saved = io.BytesIO()
    torch.save(watched, saved)
    saved.seek(0)
    assert type(torch.load(saved, weights_only=False)) is torch.nn.Sequential
    with pytest.raises(RuntimeError, match="shapes"):
        watched(torch.ones(2, 3))
    assert pub.stats.published == 0
    outer = torch.nn.Sequential(torch.nn.Identity(), watched)
    assert len(list(outer.parameters())) == 2
    outer(torch.from_numpy(X))
    assert pub.stats.published == 40, "a part of another module is watched all the same"


def test_training_mode_is_not_production(torch: Any, model: Any, publisher: Make) -> None:
    pub = publisher(classes=3)
    watched = zmon.watch(copy.deepcopy(model), pub)
    assert watched.train() is watched
    watched(torch.from_numpy(X))
    assert settled(pub).rejected == {"training_mode": 40}
    with torch.no_grad():
        watched.eval()(torch.from_numpy(X))
    assert pub.stats.published == 40


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_logits_in_any_precision(dtype: str, torch: Any, publisher: Make) -> None:
    pub = publisher(classes=3)
    bare = torch.nn.Linear(4, 3).to(getattr(torch, dtype)).eval()
    rows = torch.from_numpy(X).to(getattr(torch, dtype))
    kept: list[Any] = []
    pub.publish = lambda *args, **kwargs: kept.append(kwargs)  # type: ignore[method-assign]
    given = zmon.watch(bare, pub, output="logits")(rows)
    assert torch.equal(given, bare(rows))
    expected = torch.softmax(given.double(), dim=1).detach().numpy()
    np.testing.assert_allclose(kept[0]["probabilities"], expected, rtol=1e-12 if dtype == "float64" else 1e-5)
    assert kept[0]["inputs"].shape == (40, 4)


class OnDevice:
    """Memory of a device: NumPy cannot reach it until it has been copied to the host."""

    def __init__(self, values: Any, dtype: str = "torch.float32") -> None:
        self.values, self.dtype = values, dtype

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Tensor(OnDevice):
    def detach(self) -> Any:
        return self

    def cpu(self) -> Any:
        return require("torch").from_numpy(self.values)


class CudaArray(OnDevice):
    __cuda_array_interface__ = ()

    def get(self) -> Any:
        return self.values


@pytest.mark.parametrize("kind", [Tensor, CudaArray])
def test_results_on_a_device_are_copied_to_the_host(kind: Callable[[Any], Any], publisher: Make) -> None:
    pub = publisher(classes=2)
    kept: list[Any] = []
    pub.publish = lambda *args, **kwargs: kept.append(kwargs)  # type: ignore[method-assign]
    p = np.full((40, 2), 0.5, np.float32)
    answer = kind(p)
    assert zmon.watch(lambda rows: answer, pub)(kind(X)) is answer
    np.testing.assert_array_equal(kept[0]["probabilities"], p)
    np.testing.assert_array_equal(kept[0]["inputs"], X)


def test_tensors_without_values(torch: Any, publisher: Make) -> None:
    """Outputs without values are rejected; inputs without columns are left out."""
    pub = publisher(classes=3)
    watched = zmon.watch(lambda rows: torch.empty((40, 3), device="meta"), pub)
    watched(torch.from_numpy(X))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (0, {"probabilities_dtype": 40})
    good = zmon.watch(lambda rows: torch.full((40, 3), 1 / 3), pub)
    good(torch.from_numpy(X).to_sparse())
    good(torch.empty((40, 4), device="meta"))
    stats = settled(pub)
    assert (stats.published, stats.rejected) == (80, {"probabilities_dtype": 40})
    assert not pub.stats.degraded


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_module_and_several_outputs(torch: Any, model: Any, publisher: Make) -> None:
    class Two(torch.nn.Module):  # type: ignore[misc]
        def forward(self, rows: Any) -> Any:
            return model(rows), rows

    pub = publisher(classes=3)
    traced = torch.jit.trace(model, torch.from_numpy(X))
    zmon.watch(traced, pub)(torch.from_numpy(X))
    assert pub.stats.published == 40
    zmon.watch(Two().eval(), pub)(torch.from_numpy(X))
    assert settled(pub).rejected == {"multi_output": 40}
