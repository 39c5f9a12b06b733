"""Tasks for Inspect: free answers, multiple choice, and the perplexity of raw text."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import choice, includes, perplexity
from inspect_ai.solver import generate, multiple_choice

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Österreich": "Wien"}


@task
def capitals() -> Task:
    """Greedy answers with their logprobs."""
    return Task(
        dataset=[
            Sample(input=f"What is the capital of {country}?", target=capital)
            for country, capital in CAPITALS.items()
        ],
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(temperature=0.0, max_tokens=12, logprobs=True, top_logprobs=3),
    )


@task
def animals() -> Task:
    """Multiple choice, drawn at temperature 1 under a seed, with a system message."""
    return Task(
        dataset=[
            Sample(input="Which animal barks?", choices=["cat", "dog", "fish"], target="B"),
            Sample(input="Which animal lives in water?", choices=["fish", "horse", "hen"], target="A"),
            Sample(input="Which animal lays eggs?", choices=["dog", "cow", "hen"], target="C"),
        ],
        solver=multiple_choice(),
        scorer=choice(),
        config=GenerateConfig(
            temperature=1.0,
            top_p=0.9,
            seed=11,
            max_tokens=8,
            stop_seqs=["\n\n"],
            system_message="Answer with one letter.",
        ),
    )


@task
def texts() -> Task:
    """Raw prompts, scored by their prompt logprobs."""
    return Task(
        dataset=[
            Sample(input="The sun rises in the east and sets in the west."),
            Sample(input="Zwölf Boxkämpfer jagen Viktor quer über den Deich."),
        ],
        solver=generate(),
        scorer=perplexity(),
        config=GenerateConfig(max_tokens=1, prompt_logprobs=3, logprobs=True),
    )
