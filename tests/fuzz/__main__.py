"""``python -m tests.fuzz [SECONDS] [DECODER …]``: fuzz each decoder for so long.

With atheris the mutations follow the lines that are reached; without it they are at random. New inputs are kept under
.fuzz, and a fault is written there and ends the run with its trace.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
KEPT = FOLDER.parents[1] / ".fuzz"
LONGEST = 2**16  # bytes of an input


def at_random(name: str, seconds: float) -> int:
    """Run a decoder on mutants of its seeds; return their number."""
    from tests.fuzz.decoders import DECODERS, faultless
    from tests.fuzz.mutate import bent

    chance, until, count = random.Random(), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = chance.choice(DECODERS[name].seeds)
        for _ in range(chance.choice([1, 2, 5])):
            data = bent(data, chance)
        try:
            faultless(name, data)
        except BaseException:
            (KEPT / f"crash-{name}").write_bytes(data)
            raise
        count += 1
    return count


def with_atheris(name: str, seconds: int) -> None:
    """Run a decoder by atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["zmon", "zmon_collector"]):
        from tests.fuzz.decoders import DECODERS, faultless

    inputs = KEPT / name
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(DECODERS[name].seeds):
        (inputs / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={KEPT}/", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(inputs), str(FOLDER / "seeds" / name)],
                  lambda data: faultless(name, data))  # fmt: skip
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    KEPT.mkdir(exist_ok=True)
    guided = importlib.util.find_spec("atheris") is not None
    if arguments[:1] == ["--one"]:
        with_atheris(arguments[1], int(arguments[2]))
        return 0
    from tests.fuzz.decoders import DECODERS

    seconds, names = int(arguments[0]) if arguments else 60, arguments[1:] or list(DECODERS)
    for name in names:
        if guided:  # each in a process of its own, because atheris ends it
            print(f"{name}: atheris, {seconds} s", flush=True)
            done = subprocess.run([sys.executable, "-m", "tests.fuzz", "--one", name, str(seconds)], check=False)
            if done.returncode:
                return done.returncode
        else:
            print(f"{name}: {at_random(name, seconds):,} mutants at random; atheris is not installed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
