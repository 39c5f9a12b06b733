"""The logit lens: read off each layer what the model would say if it ended there.

nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv 2303.08112.
The answer is not there from the beginning; it appears in the last layers, and stays.
"""

from transom import Client

PROMPT = "The Eiffel Tower is in the city of"
ANSWER = " Paris"


def main() -> None:
    with Client() as client:
        model = client.model()
        lens = model.logit_lens(PROMPT, topk=5)
        paris = model.token(ANSWER)
        followed = model.trace(PROMPT).lens(targets=[paris]).run()["lens"]
        answer = followed.at(pos=0, token=0)
        best = lens.tokens.at(pos=0, rank=0).data.tolist()
        for layer in range(0, len(best), 4):
            print(f"layer {layer:2}  {best[layer]!r:12} {ANSWER!r} {float(answer.at(layer=layer)):7.2f} nats")
        first = next(layer for layer in range(len(best)) if set(best[layer:]) == {ANSWER})
        print(f"{ANSWER!r} is the likeliest token from layer {first} of {len(best)} on.")


if __name__ == "__main__":
    main()
