"""Massive activations: a few units of the first token's stream are thousands of times larger than the rest.

Sun et al. 2024, "Massive Activations in Large Language Models", arXiv 2402.17762.
They stand at the same place whatever the text is, and the model needs them: set to zero, it breaks.
"""

import numpy as np

from transom import Client

TEXTS = (
    "In the morning the old man walked to the market and bought some bread.",
    "Water boils at one hundred degrees, and freezes at zero.",
)


def main() -> None:
    with Client() as client:
        model = client.model()
        for text in TEXTS:
            stream = np.abs(model.trace(text).read("resid_post.*").run()["resid_post"])
            layer = int(stream.max((1, 2)).argmax())
            place, unit = np.unravel_index(stream[layer].argmax(), stream[layer].shape)
            ratio = stream[layer].max() / np.median(stream[layer])
            print(f"layer {layer}, position {place}, unit {unit}: {ratio:.0f} times the median")
        # What the tokens cost with that unit set to zero where it is large, and with the one beside it.
        ids = model.tokens(TEXTS[0]).tokens
        kept = sorted(set(ids))
        plain = model.trace(TEXTS[0]).lens(f"resid_post.{len(stream) - 1}", targets=kept, pos="all")
        first = f"resid_post.{layer}"
        runs = {
            "plain": plain,
            "other": plain.zero(first, pos=int(place), unit=[int(unit) + 1]),
            "broken": plain.zero(first, pos=int(place), unit=[int(unit)]),
        }
        found = model.run(**runs)
    for name in runs:
        logprobs = found[f"{name}.lens"].data
        cost = -np.mean([logprobs[place, kept.index(token)] for place, token in enumerate(ids[1:])])
        print(f"{name:6} {cost:.2f} nats a token")


if __name__ == "__main__":
    main()
