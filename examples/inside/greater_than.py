"""Greater than: a war that began in 1745 does not end in 1730, and the model knows.

Hanna, Liu and Variengien 2023, "How does GPT-2 compute greater-than?", arXiv 2305.00586.
Here years are spelled digit by digit, so the question is the third digit: smaller than the first year's, the
same, or greater. It is that digit which decides: with another's stream in its place, the answer follows.
"""

import numpy as np

from transom import Client

NOUNS = ("war", "project", "reign", "journey")
DIGITS = range(2, 9)


def prompt(noun: str, digit: int) -> str:
    return f"The {noun} lasted from the year 17{digit}5 to the year 17"


def main() -> None:
    with Client() as client:
        model = client.model()
        digits = [model.token(str(digit)) for digit in range(10)]
        asked = {
            f"{noun}_{digit}": model.trace(prompt(noun, digit)).lens("resid_post.29", targets=digits)
            for noun in NOUNS
            for digit in DIGITS
        }
        # Between the century and the last digit of the first year.
        place = {"match": "2", "nth": 0}
        low = asked["war_2"]
        asked["patched"] = low.patch("resid_post.0", pos=place, source=model.trace(prompt("war", 7)))
        found = {name: np.exp(np.asarray(found)[0]) for name, found in model.run(**asked).items()}
        found = {name.removesuffix(".lens"): values for name, values in found.items()}
    wrong, right = [], []
    for digit in DIGITS:
        mean = np.mean([found[f"{noun}_{digit}"] for noun in NOUNS], axis=0)
        wrong.append(mean[:digit].sum())
        right.append(mean[digit:].sum())
        greater = mean[digit + 1 :].sum()
        print(f"17{digit}5: smaller {wrong[-1]:.3f}, the same {mean[digit]:.3f}, greater {greater:.3f}")
    print(f"On average {np.mean(right):.3f} of the probability is not smaller, {np.mean(wrong):.3f} is.")
    before, after = (found[name][7:].sum() for name in ("war_2", "patched"))
    print(
        f"With the 7 of 1775 in the place of the 2 of 1725, 7 or more goes from {before:.2f} to {after:.2f}."
    )


if __name__ == "__main__":
    main()
