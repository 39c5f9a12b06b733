"""Records of a made-up answer, and ways to change them."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson

from transom.records.statement import draft
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measured, Measures
from transom.schema.program import TensorInfo
from transom.schema.record import Answer, Failure

WRITES = (
    {
        "at": "resid_post.10",
        "pos": "all",
        "op": "add",
        "scale": 4.0,
        "value": {"shape": [2], "sha256": "sha256:0"},
    },
    {"at": "z.3", "pos": {"phase": "generated"}, "head": [1], "op": "zero"},
)

RECEIVED = datetime(2026, 1, 31, 9, 5, 0, 1, tzinfo=UTC)

TENSORS = (
    TensorInfo(
        name="clean.heads",
        dtype="float32",
        shape=(2, 3, 64),
        axes=("position", "head", "unit"),
        sha256="c" * 64,
    ),
    TensorInfo(name="best.ids", dtype="int32", shape=(), axes=(), sha256="1" * 64),
)


def token(token_id, logprob, top=(), **more):
    return TokenLogprob(token_id, float(np.float32(logprob)), 1, top, **more)


def generated(text=" blue"):
    whole = {"measured": Measured(entropy=1.25, top_k_mass=0.5), "distribution": b"\0\0\x80\xbf" * 9}
    tokens = [token(7, -0.1, ((7, -0.5), (9, -1.5)), **whole), token(2, -2.25, ((2, -2.25),), **whole)]
    prompt = (None, token(5, -3.3, ((4, -0.25),), **whole))
    return SequenceResult(
        tokens=tokens, text=text, prompt_logprobs=prompt, finish_reason="stop", stop_reason=2
    )


def answer(**changes):
    fields = {
        "record_id": "rec_" + "0" * 26,
        "project_id": "local",
        "key_id": None,
        "model": "smollm2-135m-instruct",
        "deployment": "sha256:" + "d" * 64,
        "endpoint": "/v1/completions",
        "received": RECEIVED,
        "answered": RECEIVED + timedelta(seconds=1),
        "status": "complete",
        "request": {"prompt": ["the sky is", "grass is"], "temperature": 0.1, "seed": 2**63 - 1},
        "messages": [{"role": "user", "content": "hidden words"}],
        "prompts": [(1, 5), (1, 6, 4_294_967_295)],
        "sampling": SamplingParams(
            seed=2**63 - 1,
            max_tokens=16,
            temperature=0.1,
            logprobs=2,
            logit_bias=((3, -1.5),),
            stop=("whisper", "\n"),
            stop_token_ids=(7654321,),
            prompt_logprobs=1,
            measures=Measures(entropy=True, rank=True, top_k_mass=4),
            prompt_measures=Measures(surprisal=True),
            distributions=(0, 1),
            prompt_distributions=(1,),
        ),
        "seed_source": "explicit",
        "n": 1,
        "sequences": [(0, 0, generated()), (1, 0, generated(" green"))],
        "error": Failure(code="generation_failed", message="the reason, at length"),
        "tensors": TENSORS,
        "writes": WRITES,
    }
    return Answer(**(fields | changes))


def record(**changes):
    """(statement, openings) as they come back from the database."""
    drafted = draft(answer(**changes))
    return json.loads(drafted.statement(3)), orjson.loads(drafted.openings)


def leaves(value, path=()):
    """Every path to a scalar, so that each can be changed in turn."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
    else:
        yield path


def other(value):
    """A value of the same type, as near as there is one."""
    if value is None:
        return "something"
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return float(np.nextafter(np.float32(value), np.float32(0))) if isinstance(value, float) else value + 1


def changed(openings, path):
    copy = json.loads(json.dumps(openings))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other(inner[path[-1]])
    return copy
