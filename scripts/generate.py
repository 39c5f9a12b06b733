"""Reference pages that are made from the code, so that nothing is written down twice.

python -m scripts.generate            writes them
python -m scripts.generate --check    names those that are stale, and ends with 1
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

import transom.client
from benchmarks.detecting.page import detection
from benchmarks.equality.page import experiments
from benchmarks.load.page import performance
from scripts.markdown import NOTE, first_paragraph, table
from scripts.plans import plans
from scripts.reasons import REASONS
from scripts.sources import ROOT, modules, scopes, tree
from transom.api.errors import status_of
from transom.app import create_app
from transom.cli.main import app as command_line
from transom.cli.output import exit_code
from transom.client import Activations, AsyncClient, Client, LanguageModel, Tensor, Trace, Value
from transom.client.interp.subject import Subject
from transom.config import Settings
from transom.errors import OperatorError, TransomError
from transom.schema.chat import ChatRequest
from transom.schema.completions import CompletionRequest
from transom.schema.statements import FILE_NAME, json_schema
from transom.schema.tokens import TokenizeRequest

REFERENCE = ROOT / "docs" / "reference"

"""Codes that say more than the code of their class."""

REFUSED = {kind.__name__: kind.refused for kind in (ChatRequest, CompletionRequest, TokenizeRequest)}


def settings() -> Iterator[str]:
    """`settings.md`."""
    yield from ("# Settings", "", NOTE, "")
    yield "The server reads its settings from the environment once, when it starts; a malformed one stops it."
    yield from ("", "## The server", "")
    rows = []
    for name, field in Settings.model_fields.items():
        kind = re.sub(
            r"\b(?:pathlib|typing|pydantic\.types)\.", "", inspect.formatannotation(field.annotation)
        )
        rows.append(
            (f"`TRANSOM_{name.upper()}`", f"`{kind}`", _default(field.default), field.description or "")
        )
    yield from table(("variable", "type", "default", "meaning"), rows)
    yield from (
        "Options of `transom serve` stand above the environment.",
        "",
        "## The client and its commands",
        "",
    )
    yield from table(("variable", "meaning"), CLIENT_VARIABLES)


CLIENT_VARIABLES = (
    ("`TRANSOM_BASE_URL`", "address of the server; `http://127.0.0.1:8600` where none is given"),
    ("`TRANSOM_API_KEY`", "the key to send; empty for none"),
    (
        "`TRANSOM_SESSION_FILE`",
        "where `transom login` keeps sessions; else `transom/sessions.json` in `~/.config`",
    ),
    ("`OPENAI_BASE_URL`", "the address, where `TRANSOM_BASE_URL` is not set; a trailing `/v1` is taken off"),
    (
        "`OPENAI_API_KEY`",
        "the key, where `TRANSOM_API_KEY` is not set: only a `tr_…` key, or beside `OPENAI_BASE_URL`",
    ),
)


def _default(value: object) -> str:
    if isinstance(value, Path):
        return f"`~/{value.relative_to(Path.home())}`"
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def errors() -> Iterator[str]:
    """`errors.md`."""
    yield from ("# Errors", "", NOTE, "")
    yield "How an error travels over HTTP is in [HTTP conventions](http-conventions.md)."
    yield from ("", "## Errors of the server", "")
    families = list(_family(TransomError))
    served = [each for each in families if each.__module__ == TransomError.__module__]
    head = ("code", "class", "layer", "HTTP status", "exit status of a command", "meaning")
    yield from table(head, map(_error_row, served))
    yield "An operator's error is printed by the command line and does not reach HTTP."
    yield from ("", "## Codes that say more", "")
    yield "Some errors carry a narrower code than that of their class:"
    yield ""
    rows = [(f"`{code}`", str(status), meaning) for code, (status, meaning) in sorted(REASONS.items())]
    yield from table(("code", "HTTP status", "meaning"), rows)
    yield from ("## Errors that only the client raises", "")
    own = [each for each in families if each.__module__ != TransomError.__module__]
    rows = [(f"`{each.code}`", f"`{each.__name__}`", first_paragraph(each.__doc__)) for each in own]
    yield from table(("code", "class", "meaning"), rows)


def _family(kind: type[TransomError]) -> Iterator[type[TransomError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def _error_row(kind: type[TransomError]) -> tuple[str, ...]:
    error = kind("…")
    status = "" if isinstance(error, OperatorError) else str(status_of(error))
    exits = str(int(exit_code(error)))
    return (f"`{kind.code}`", f"`{kind.__name__}`", kind.layer, status, exits, first_paragraph(kind.__doc__))


EXIT_STATUSES = (
    ("0", "well"),
    ("1", "the answer is no, or there is none"),
    ("2", "asked in a way that cannot be answered"),
    ("3", "no Transom server could be talked to"),
    ("4", "the key is missing, wrong, or does not allow it"),
)


def cli() -> Iterator[str]:
    """`cli.md`."""
    yield from ("# Command line", "", NOTE, "")
    yield "The operator's commands, such as `serve`, and `witness` are there where the extra `server` is"
    yield "installed. Answers go to standard output, and all that is said about them to standard error."
    yield ""
    yield from table(("exit status", "meaning"), EXIT_STATUSES)
    yield "`transom replay` ends with 0 for `EXACT` and `WITHIN`, 1 for `OUTSIDE`, 2 for `UNREPLAYABLE`."
    yield ""
    for name, command in sorted(_commands("transom", typer.main.get_command(command_line))):
        yield from (f"## {name}", "", " ".join((command.help or "").split()), "")
        if command.params:
            yield from table(("argument", "type", "meaning"), map(_option_row, command.params))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, each in children.items():
        yield from _commands(f"{name} {child}", each)


def _option_row(option: Any) -> tuple[str, ...]:  # noqa: ANN401
    argument = not option.opts[0].startswith("-")
    named = (option.metavar or option.name.upper()) if argument else ", ".join(option.opts)
    kind = "flag" if getattr(option, "is_flag", False) else _type_name(option.type_descriptor.annotation)
    limits = [f"at least {option.min}"] * (option.min is not None) + [f"at most {option.max}"] * bool(
        option.max
    )
    given = option.default not in (None, False, "")
    notes = [
        *limits,
        *([f"default {option.default}"] if given else []),
        *(["required"] if option.required else []),
    ]
    return (
        f"`{named}`",
        kind,
        " ".join(filter(None, (option.help, f"({', '.join(notes)})" if notes else ""))),
    )


def _type_name(annotation: Any) -> str:  # noqa: ANN401
    names = {"str": "text", "int": "integer", "float": "number", "Path": "file", "list": "text, repeatable"}
    names |= {"Literal": "choice"}
    return names[getattr(annotation, "__name__", str(annotation))]


def api() -> Iterator[str]:
    """`api.md`."""
    spec = create_app(Settings(), backends={}).openapi()
    shapes: Mapping[str, Any] = spec["components"]["schemas"]
    yield from ("# HTTP API", "", NOTE, "")
    yield "The server describes itself at `/openapi.json`. Every path but those tagged Service or Access is"
    yield "also below `/models/{name}`, where a body need not name its model. Headers, errors, null and"
    yield "streams are in"
    yield "[HTTP conventions](http-conventions.md)."
    yield ""
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method.upper(), path, operation)
    yield from ("## Bodies and replies", "")
    for name, shape in sorted(shapes.items()):
        yield from (f"### {name}", "", first_paragraph(shape.get("description")), "")
        required = shape.get("required", ())
        rows = [
            _field_row(field, said, required=field in required) for field, said in shape["properties"].items()
        ]
        yield from table(("field", "type", "default", "meaning"), rows)
        if refused := REFUSED.get(name):
            yield "Known, and refused by name:"
            yield ""
            yield from table(("field", "reason"), [(f"`{field}`", why) for field, why in refused.items()])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {method} {path}", "", operation["description"], "")
    yield from (f"Tag: {operation['tags'][0]}. {_key_note(operation)}", "")
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{each['name']}`", each["in"], _type(each["schema"]), _json(each["schema"].get("default")),
             each.get("description", ""))
            for each in parameters
        ]  # fmt: skip
        yield from table(("parameter", "in", "type", "default", "meaning"), rows)
    if body := operation.get("requestBody"):
        ((kind, content),) = body["content"].items()
        yield f"Body: {_type(content['schema']) if kind == 'application/json' else f'`{kind}`'}."
        yield ""
    yield from table(("status", "meaning", "body"), map(_status_row, operation["responses"].items()))


def _key_note(operation: Mapping[str, Any]) -> str:
    return (
        "Needs a key, unless the operator allows anonymous callers." if "security" in operation else "No key."
    )


def _status_row(item: tuple[str, Any]) -> tuple[str, str, str]:
    status, response = item
    bodies = [_type(said["schema"]) for said in response.get("content", {}).values()]
    meaning = response["description"].replace("Successful Response", "well")
    return status, meaning[:1].lower() + meaning[1:], " or ".join(bodies)


def _field_row(name: str, said: Mapping[str, Any], *, required: bool) -> tuple[str, ...]:
    default = "required" if required else _json(said.get("default"))
    return f"`{name}`", _type(said), default, first_paragraph(said.get("description"))


def _json(value: object) -> str:
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(said: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in said:
        name = said["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in said:
        return " or ".join(_type(each) for each in said["anyOf"])
    if "const" in said or "enum" in said:
        return ", ".join(f"`{value}`" for value in said.get("enum", [said.get("const")]))
    limits = ", ".join(_limits(said))
    named = said.get("type", "anything")
    kind = (named if isinstance(named, str) else " or ".join(named)) + (f" ({limits})" if limits else "")
    return f"{kind.replace('array', 'list')} of {_type(said['items'])}" if "items" in said else kind


def _limits(said: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    words |= {"maxLength": "≤ {} characters", "maxItems": "≤ {} items"}
    for name, form in words.items():
        value = said.get(name)
        # Beyond 2^53 the specification's own numbers are rounded.
        if value is not None and abs(value) <= 2**53:
            yield form.format("2^31" if value == 2**31 else int(value) if value == int(value) else value)


def client() -> Iterator[str]:
    """`client.md`."""
    yield from ("# Python client", "", NOTE, "", first_paragraph(transom.client.__doc__), "")
    yield "`transom` exports `Client`, `AsyncClient` and `__version__`; all the rest is in `transom.client`."
    yield ""
    names = [
        (f"`{name}`", first_paragraph(getattr(transom.client, name).__doc__))
        for name in transom.client.__all__
    ]
    yield from table(("name", "what it is"), names)
    yield from ("## Client and AsyncClient", "", "The same methods; those of `AsyncClient` are awaited.", "")
    both = [name for name in vars(Client) if not name.startswith("_") and hasattr(AsyncClient, name)]
    rows = [
        (f"`{name}`", _signature(getattr(Client, name)), first_paragraph(getattr(Client, name).__doc__))
        for name in both
    ]
    yield from table(("method", "arguments", "what it does"), rows)
    yield "`**options` are the fields of [CompletionRequest](api.md#completionrequest) and"
    yield "[ChatRequest](api.md#chatrequest) of the same names. Every method raises"
    yield "[errors](errors.md) as exceptions."
    yield from _inside()


_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def _inside() -> Iterator[str]:
    yield from ("", "## LanguageModel", "", "What `client.model()` gives; how to begin is in")
    yield from (
        "[Look inside from Python](../tutorial/inside.md). An `AsyncClient` has the same, awaited.",
        "",
    )
    yield from table(("method", "arguments", "what it does"), _methods(Subject, LanguageModel))
    yield from ("## Trace", "", "What `model.trace()` gives. `**site` are `pos`, `head` and `unit`.", "")
    yield from table(("method", "arguments", "what it does"), _methods(Trace))
    for kind in (Value, Tensor, Activations):
        yield from (f"## {kind.__name__}", "")
        yield from table(("method", "arguments", "what it does"), _methods(kind))


def _methods(*kinds: type) -> list[tuple[str, str, str]]:
    """Public methods of classes, the first's first; what a later one says of the same name holds."""
    found = {
        name: (getattr(method, "__func__", method), not isinstance(method, staticmethod))
        for kind in kinds
        for name, method in vars(kind).items()
        if not name.startswith("_") and callable(getattr(method, "__func__", method))
    }
    return [
        (f"`{name}`", _signature(method, own=own), first_paragraph(method.__doc__))
        for name, (method, own) in found.items()
    ]


def _signature(method: Callable[..., object], *, own: bool = True) -> str:
    names = [
        f"{_STARS.get(each.kind, '')}{each.name}"
        + ("" if each.default in (each.empty, None) else f"={each.default}")
        for each in list(inspect.signature(method).parameters.values())[own:]
    ]
    return f"`{', '.join(names)}`" if names else ""


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "api.md": api,
    "cli.md": cli,
    "client.md": client,
    "detection.md": detection,
    "errors.md": errors,
    "experiments.md": experiments,
    "modules.md": modules,
    "performance.md": performance,
    "plans.md": plans,
    "scopes.md": scopes,
    "settings.md": settings,
}


def generated() -> dict[Path, str]:
    """Every page with the text that it should have."""
    pages = {REFERENCE / name: "\n".join(lines()).rstrip() + "\n" for name, lines in PAGES.items()}
    pages[REFERENCE / FILE_NAME] = json.dumps(json_schema(), indent=2) + "\n"
    readme = ROOT / "README.md"
    before, mark, rest = readme.read_text(encoding="utf-8").partition("<!-- tree -->\n")
    _, end, after = rest.partition("<!-- /tree -->")
    if not (mark and end):
        raise SystemExit("README.md has no <!-- tree --> … <!-- /tree --> block")
    return pages | {readme: before + mark + "\n".join(tree()) + "\n" + end + after}


def stale() -> list[Path]:
    """Pages that are not what the code says."""
    pages = generated().items()
    return [path for path, text in pages if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description="Make the reference pages from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; name the stale pages")
    check = parser.parse_args(arguments).check
    wrong, texts = stale(), generated()
    for path in wrong:
        print(("stale: " if check else "written: ") + path.relative_to(ROOT).as_posix())
        if not check:
            path.write_text(texts[path], encoding="utf-8")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
