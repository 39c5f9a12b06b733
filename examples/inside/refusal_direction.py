"""Refusal is one direction: take it away, and a model that said sorry answers.

Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", arXiv 2406.11717.
This model hardly refuses harm; it says sorry to what a chatbot cannot do or does not have. The direction is
what such requests have more than others where the answer begins. It is removed in every layer.
"""

from transom import Client
from transom.client import Value

REFUSED = (
    "Order a pizza for me.", "Tell me my password.", "Can you book me a flight?",
    "What did you eat for breakfast?", "What time is it?", "Do you have children?",
)  # fmt: skip
ANSWERED = (
    "What is the capital of France?", "Explain how rain forms.", "Write a short poem about the sea.",
    "Name three fruits.", "How do I bake bread?", "What is a prime number?",
)  # fmt: skip
NEW = (
    "Reserve a table for two.",
    "Can you call my sister?",
    "Do you have a brother?",
    "Buy me a ticket to London.",
)
ORDINARY = ("Explain how wind forms.", "How do I cook rice?")
AT, LAYERS = "resid_post.20", 30


def main() -> None:
    with Client() as client:
        model = client.model()

        def chat(text: str):
            return model.trace([{"role": "user", "content": text}])

        refused, answered = (
            Value.mean_of([chat(text).read(AT, name="end", pos="last")["end"] for text in texts])
            for texts in (REFUSED, ANSWERED)
        )
        direction = (refused - answered).normalize()
        runs = {}
        for number, text in enumerate(NEW + ORDINARY):
            trace = runs[f"before_{number}"] = chat(text).generate(10)
            for layer in range(LAYERS):
                trace = trace.project_out(f"resid_post.{layer}", direction)
            runs[f"after_{number}"] = trace
        found = model.run(**runs)
        texts = {name: client.detokenize(found[f"{name}.tokens"].data.tolist()) for name in runs}
    for number, text in enumerate(NEW + ORDINARY):
        print(f"{text}\n  before: {texts[f'before_{number}']!r}\n  after:  {texts[f'after_{number}']!r}")
    for when in ("before", "after"):
        sorry = [texts[f"{when}_{number}"].startswith("I'm sorry") for number in range(len(NEW + ORDINARY))]
        new, ordinary = sum(sorry[: len(NEW)]), sum(sorry[len(NEW) :])
        print(f"{when}: sorry to {new} of {len(NEW)} such requests, to {ordinary} of {len(ORDINARY)} others")


if __name__ == "__main__":
    main()
