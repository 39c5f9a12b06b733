"""Steering: add a direction to the stream while the model writes, and it writes in another mood.

Turner et al. 2023, "Activation Addition: Steering Language Models Without Optimization", arXiv 2308.10248.
The direction is what glad sentences have more than sad ones, at their last token, in the middle of the model.
"""

from transom import Client
from transom.client import Value

GLAD = ("I love this", "This is wonderful, I am so happy", "What a beautiful, great day")
SAD = ("I hate this", "This is terrible, I am so sad", "What an ugly, awful day")
AT = "resid_post.12"
PROMPT = "I think that the movie was"


def main() -> None:
    with Client() as client:
        model = client.model()
        good, bad = model.token(" great"), model.token(" bad")
        glad, sad = (
            Value.mean_of([model.trace(text).read(AT, name="end", pos="last")["end"] for text in texts])
            for texts in (GLAD, SAD)
        )
        plain = model.trace(PROMPT).generate(16).logits([good, bad])
        # Not at the first position, whose stream holds something else; see massive_activations.py.
        runs = {
            "sad": plain.add(AT, glad - sad, scale=-1.0, pos={"from": 1}),
            "plain": plain,
            "glad": plain.add(AT, glad - sad, scale=1.0, pos={"from": 1}),
        }
        found = model.run(**runs)
        for name in runs:
            logits = found[f"{name}.logits"].at(pos=0)
            text = client.detokenize(found[f"{name}.tokens"].data.tolist())
            print(f"{name:5} ' great' - ' bad' {float(logits.at(token=0) - logits.at(token=1)):5.2f}{text!r}")


if __name__ == "__main__":
    main()
