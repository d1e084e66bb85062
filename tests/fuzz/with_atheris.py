"""One target under atheris: `python -m tests.fuzz.with_atheris TARGET [libFuzzer's arguments]`.

What is imported below is instrumented, so that libFuzzer sees which inputs reach something new. It
changes bytes; our own engine changes what stands in JSON, and each has its turn.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["ari_app", "audiosocket", "lab.softphone"]):
    from ari_app.process.logs import set_up_logging
    from tests.fuzz.engine import changed
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until libFuzzer ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    set_up_logging("ERROR")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, max_size))
        return changed(data, target.seeds, random.Random(seed))[:max_size]

    atheris.Setup(sys.argv, target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
