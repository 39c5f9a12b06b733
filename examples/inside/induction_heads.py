"""Induction heads: on a repeated sequence, they look at what came after the same token before.

Olsson et al. 2022, "In-context Learning and Induction Heads", arXiv 2209.11895.
Random tokens are said twice. A head's score is the attention that it pays, from a token of the second time,
to the one after the same token of the first time. What the heads find is what the model then predicts.
"""

import numpy as np

from transom import Client

LENGTH = 24


def main() -> None:
    once = np.random.default_rng(0).integers(1000, 40_000, LENGTH).tolist()
    again = {"from": LENGTH}
    with Client() as client:
        model = client.model()
        trace = model.trace(once + once).read("attn_probs.*", name="pattern", pos=again)
        pattern = trace.run()["pattern"].transposed("layer", "head", "pos", "unit").data
        scored = client.complete(once + once, max_tokens=1, prompt_measures={"surprisal": True})
    places = np.arange(LENGTH)
    score = pattern[:, :, places, places + 1].mean(-1)
    for index in np.argsort(-score, axis=None)[:5]:
        layer, head = np.unravel_index(index, score.shape)
        print(f"head {layer}.{head}: {score[layer, head]:.2f} of its attention goes to the token after")
    print(f"Half of all heads pay it less than {np.median(score):.3f}; the best pays {score.max():.2f}.")
    surprisal = [token.surprisal for token in scored.choices[0].prompt_measures[1:]]
    first, second = np.mean(surprisal[: LENGTH - 1]), np.mean(surprisal[LENGTH:])
    print(f"A token costs {first:.1f} nats the first time and {second:.1f} the second time.")


if __name__ == "__main__":
    main()
