"""Tasks for Inspect: free answers, multiple choice, and the likelihood of a text."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Target, accuracy, choice, includes, mean, scorer
from inspect_ai.solver import TaskState, generate, multiple_choice


@task
def capitals() -> Task:
    """Greedy answers with their logprobs."""
    countries = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Österreich": "Vienna"}
    return Task(
        dataset=[
            Sample(input=f"What is the capital of {country}?", target=capital)
            for country, capital in countries.items()
        ],
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(temperature=0.0, max_tokens=20, logprobs=True, top_logprobs=3),
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
            temperature=1.0, top_p=0.9, seed=11, max_tokens=16, system_message="Answer with one letter."
        ),
    )


@scorer(metrics=[mean()])
def bits_per_token():
    """Mean surprise of the prompt's tokens, from the prompt logprobs of the completions provider."""

    async def score(state: TaskState, target: Target) -> Score:
        known = [entry.logprob for entry in state.output.choices[0].prompt_logprobs.content]
        return Score(value=-sum(known) / len(known) / 0.6931471805599453, metadata={"logprobs": known})

    return score


@task
def texts() -> Task:
    """Raw prompts on /v1/completions."""
    return Task(
        dataset=[
            Sample(input="The sun rises in the east and sets in the west."),
            Sample(input="Zwölf Boxkämpfer jagen Viktor quer über den Deich."),
        ],
        solver=generate(),
        scorer=bits_per_token(),
        config=GenerateConfig(max_tokens=1, prompt_logprobs=1, logprobs=True),
    )
