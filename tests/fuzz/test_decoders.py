"""No bytes make a decoder raise anything but WireError: mutants of sound messages, and inputs that once did."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.decoders import DECODERS, faultless, frames_of, joined
from tests.fuzz.mutate import bent, moved

SEEDS = Path(__file__).parent / "seeds"
MUTANTS = 2000


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_are_sound(name: str) -> None:
    taken = [faultless(name, seed) for seed in DECODERS[name].seeds]
    assert sum(taken) >= len(taken) - 1, "all, but a batch that is withheld"


@pytest.mark.parametrize("name", DECODERS)
def test_mutants_are_refused_or_taken(name: str) -> None:
    chance = random.Random(7)
    for number in range(MUTANTS):
        data = chance.choice(DECODERS[name].seeds)
        if name == "data" and number % 2:  # frames that keep their lengths, so that the decoder gets far
            frames = frames_of(data)
            at = chance.randrange(len(frames))
            frames[at] = (
                moved(frames[1], chance, [b"f" * 16]) if at == 1 and number % 4 == 1 else bent(frames[at], chance)
            )
            data = joined(frames)
        elif name in ("greeting", "ack") and number % 2:
            data = moved(data, chance, [b"g" * 16, b"short"])
        else:
            data = bent(data, chance)
        faultless(name, data)


def kept() -> list[Path]:
    return sorted(path for path in SEEDS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", kept(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_that_were_kept(path: Path) -> None:
    faultless(path.parent.name, path.read_bytes())
