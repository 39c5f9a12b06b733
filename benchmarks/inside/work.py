"""What is to be done, in numbers. It imports nothing, so that workers in any environment can read it."""

from __future__ import annotations

VOCABULARY = 40_000
PROMPTS, LENGTH = 64, 64
SWEPT = 15
STEERED, NEW_TOKENS = 8, 64
STEERING_LAYER, STEERING_STRENGTH = 15, 4.0
TARGETS = (5, 6)
RESEARCHERS = 16
COMPARED = range(0, PROMPTS, 16)
"""Prompts of which a number is compared."""


def prompt(number: int, length: int = LENGTH) -> list[int]:
    """Token ids, other ones for each number and for each length."""
    return [(7919 * number + 104_729 * place + 31 * length) % VOCABULARY + 5 for place in range(length)]


def pair() -> tuple[list[int], list[int]]:
    """A clean prompt, and one that differs in one token."""
    clean = prompt(1, SWEPT)
    return clean, [*clean[:5], 999, *clean[6:]]
