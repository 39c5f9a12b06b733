"""A linear probe: at the full stop, a line through the stream tells praise from blame.

Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv 1610.01644.
The full stop is the same token in every sentence, so all that a probe can find there was brought there by
attention. The words that it is tested with are not those that it was fitted to.
"""

import tempfile

import numpy as np

from transom import Client

PRAISE = (
    "wonderful", "great", "lovely", "excellent", "brilliant",
    "delightful", "superb", "charming", "perfect", "amazing",
)  # fmt: skip
BLAME = (
    "terrible", "awful", "horrible", "dreadful", "boring",
    "disgusting", "poor", "ugly", "broken", "disappointing",
)  # fmt: skip
THINGS = ("movie", "meal", "book", "hotel", "concert", "speech")
FITTED = 7
"""Words of each kind that the probe is fitted to."""


def accuracy(stream: np.ndarray, praise: np.ndarray, fitted: np.ndarray) -> float:
    """Of ridge regression on one layer's stream, on the sentences that it was not fitted to."""
    scaled = (stream - stream[fitted].mean(0)) / (stream[fitted].std(0) + 1e-6)
    signs = np.where(praise, 1.0, -1.0)
    gram = scaled[fitted] @ scaled[fitted].T
    weights = scaled[fitted].T @ np.linalg.solve(gram + 10 * np.eye(len(gram)), signs[fitted])
    return float(((scaled[~fitted] @ weights > 0) == praise[~fitted]).mean())


def main() -> None:
    rows = [
        (f"The {thing} was {word}.", words is PRAISE, number < FITTED)
        for words in (PRAISE, BLAME)
        for number, word in enumerate(words)
        for thing in THINGS
    ]
    texts, praise, fitted = (np.array(column) for column in zip(*rows, strict=True))
    with Client() as client, tempfile.TemporaryDirectory() as folder:
        model = client.model()
        found = model.collect(texts.tolist(), folder, at=["embeddings", "resid_post.*"], pos="last")
        at_first, stream = found.load("embeddings"), found.load("resid_post")
    chance = accuracy(at_first, praise, fitted)
    layers = [accuracy(stream[:, layer], praise, fitted) for layer in range(stream.shape[1])]
    for layer in range(0, len(layers), 3):
        print(f"layer {layer:2}: {layers[layer]:.0%} of new words told apart")
    first = next(layer for layer in range(len(layers)) if min(layers[layer:]) >= 0.95)
    print(f"From the embedding {chance:.0%}; from layer {first} on never below {min(layers[first:]):.0%}.")


if __name__ == "__main__":
    main()
