"""Claim: of canaries with nothing wrong the judge promotes nearly all; of those that are 15 % slower per token, or in
hundreds of ms to the first token, none.

Simulated (tests/canaries.py): no server, no clock, a truth that is known. Says for each noise and each difference how
many were promoted, taken back as worse, or taken back because it could not be told, and after how many rounds.

    python -m benchmarks.scale_judge [--short] [DRAWS]
"""

from __future__ import annotations

import sys
from collections import Counter

from canaries import BUSY, GPU, RAY, tried

from benchmarks.timing import IS_SHORT, report, words

DRAWS = 10 if IS_SHORT else int(next(iter(words()), 1000))
NOISES = {"ray": RAY, "busy": BUSY, "gpu": GPU}
TIMES = ((1.0, 1.0), (1.05, 1.0), (1.15, 1.0), (1.5, 1.0), (2.0, 1.0), (1.0, 1.05), (1.0, 1.1), (1.0, 1.15))


def main() -> int:
    good, bad = [], []
    print(f"{DRAWS} draws each\nnoise  first token  per token  promoted  worse  cannot be told  rounds")
    for name, noises in NOISES.items():
        for ttft, tpot in TIMES:
            found = [tried(seed, noises, ttft, tpot) for seed in range(DRAWS)]
            codes = Counter(one.exit_code for one in found)
            rounds = sum(one.rounds for one in found) / DRAWS
            shares = [f"{codes[code] / DRAWS:.1%}" for code in (0, 3, 4)]
            words_of = (
                f"{name:5}",
                f"{ttft:11.2f}",
                f"{tpot:9.2f}",
                *(f"{one:>8}" for one in shares),
                f"{rounds:6.1f}",
            )
            print("  ".join(words_of), flush=True)
            good += [codes[0] / DRAWS] if (ttft, tpot) == (1.0, 1.0) else []
            bad += [codes[0] / DRAWS] if tpot >= 1.15 or (name == "gpu" and ttft >= 1.15) else []
    report(equal_promoted_at_least=min(good), worse_promoted_at_most=max(bad))
    return 0 if IS_SHORT or (min(good) >= 0.9 and max(bad) <= 0.001) else 1


if __name__ == "__main__":
    sys.exit(main())
