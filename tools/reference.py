"""Write the reference pages in docs/reference from the code: settings, study files, metrics and alarms, commands.

The comments of the recipes of large models and the table of docs/large-models.md are written too (:mod:`recipes`).

    python tools/reference.py            # write them
    python tools/reference.py --check    # fail if one is out of date

The texts are the docstrings below fields, the ``Args`` of environments, and the declarations of metrics.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import typer
import yaml
from pydantic import BaseModel

from hiper import cli
from hiper.advantages import ESTIMATORS, HAE
from hiper.config import AlarmConfig, Config
from hiper.envs import registry
from hiper.plugins import resolve
from hiper.rollout.samplers import SAMPLERS
from hiper.runs import metrics
from hiper.study import definition
from hiper.training.alarms import WATCHES

import recipes  # isort: skip

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py. Change the docstrings in {source}, then run `make reference`. -->\n"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a table of settings."""

    name: str
    type: str
    default: str
    text: str


# Settings


def settings_page() -> str:
    """Return the reference of settings: the tree, the estimators' parameters, environments' and samplers' options."""
    sections = dict(sections_of(Config))
    parts = [
        "# Settings",
        NOTE.format(source="`hiper.config`, `hiper.advantages` and the environments"),
        "A recipe is a YAML file with these sections. The command line overrides a setting by its dotted key: "
        "`hiper train quickstart learner.lr=1e-4`. Unknown keys are errors. The defaults below are those of the tree; "
        "recipes change some of them. `hiper recipes NAME` shows a recipe.",
        "Sections: " + ", ".join(f"[{key}](#{anchor(key)})" for key in ("top level", *sections)) + ".",
        "## top level",
        table([entry for entry in fields_of(Config) if entry.name not in sections]),
    ]
    for key, kind in sections.items():
        parts.append(f"## {key}")
        if key == "advantages":
            parts += estimators()
        else:
            own = (entry for entry in fields_of(kind) if f"{key}.{entry.name}" not in sections)
            parts += [*described(kind), table(own)]
        if key == "env":
            parts += environments()
        if key == "sampler":
            parts += samplers()
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def sections_of(kind: type, prefix: str = "") -> Iterable[tuple[str, type]]:
    """Yield the dotted key and the class of every section, in the order of the tree."""
    for name, hint in get_type_hints(kind).items():
        for part in get_args(hint) or (hint,):  # a section may be null
            if name in documented(kind) and isinstance(part, type) and is_section(part):
                yield f"{prefix}{name}", part
                yield from sections_of(part, f"{prefix}{name}.")


def is_section(kind: type) -> bool:
    """Whether a class is a section of settings."""
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)


def estimators() -> list[str]:
    """Return a part for every estimator that ships."""
    names = ", ".join(f"[`{name}`](#{anchor(f'advantages.type: {name}')})" for name in ESTIMATORS)
    parts = [
        f"`type` (default: `{HAE.type}`) chooses the estimator: {names}, or `module:Class` for [one of your own]"
        "(../estimators.md). The other keys are its parameters. [Credit](../credit.md) compares "
        "the estimators."
    ]
    for name, kind in ESTIMATORS.items():
        module = f"../../src/{kind.__module__.replace('.', '/')}.py"
        texts = [
            text.replace("The module's docstring states", f"[The module]({module}) states") for text in described(kind)
        ]
        compares = "It compares the episodes of a group." if kind.grouped else "It needs no groups."
        texts.append(f"Critic: `{kind.critic}`. {compares}")
        parts += [f"### advantages.type: {name}", *texts, table(fields_of(kind))]
    return parts


def environments() -> list[str]:
    """Return a part for the options of every environment that ships."""
    parts = []
    for name in registry.names():
        parts += [f"### env.name: {name}", table(arguments_of(registry.find_factory(name)))]
    return parts


def samplers() -> list[str]:
    """Return a part for the options of every sampler that ships."""
    parts = []
    for name, place in SAMPLERS.items():
        made = resolve("sampler", place, {})
        parts += [f"### sampler.type: {name}", table(fields_of(made.options))]
    return parts


# Studies


def studies_page() -> str:
    """Return the reference of study files."""
    parts = [
        "# Study files",
        NOTE.format(source="`hiper.study.definition`"),
        *paragraphs(inspect.getdoc(definition) or "", code="yaml")[:-1],
        "[Studies](../studies.md) explains how a study runs.",
    ]
    for title, kind in {
        "Study": definition.Study,
        "methods": definition.MethodDefinition,
        "tuning": definition.Tuning,
        "sweep": definition.Sweep,
    }.items():
        parts += [f"## {title}", *described(kind), table(fields_of(kind))]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


# Metrics and alarms


def metrics_page() -> str:
    """Return the reference of metrics and alarms."""
    parts = [
        "# Metrics and alarms",
        NOTE.format(source="`hiper.runs.metrics` and `hiper.training.alarms`"),
        "A run writes these metrics to `metrics.jsonl`, one line per iteration and per evaluation, and to TensorBoard. "
        "A part in angle brackets varies. A share lies between 0 and 1. [Reading a run](../reading-a-run.md) explains "
        "what the terminal shows.",
    ]
    declared = {id(metric): metric for metric in metrics.METRICS}
    for comment, names in groups_of_metrics(Path(metrics.__file__).read_text(encoding="utf-8")):
        heading, _, rest = comment.partition(". ")
        rows = [vars(metrics)[name] for name in names]
        parts.append(f"## {heading.rstrip('.')}")
        if rest:
            parts.append(rest)
        parts.append(grid(("metric", "unit", "meaning"), [(f"`{m.name}`", m.unit, markdown(m.meaning)) for m in rows]))
        for metric in rows:
            del declared[id(metric)]
    if declared:
        raise ValueError(
            f"{[metric.name for metric in declared.values()]} stand below no comment in hiper.runs.metrics"
        )
    limits = {entry.name: entry for entry in fields_of(AlarmConfig)}
    patience = limits["patience"].default
    parts += [
        "## Alarms",
        f"An alarm rings when its metric is beyond its limit for `alarms.patience` ({patience}) iterations in a row. "
        "The terminal shows it once, in red. Every iteration stores it as `alarm/<name>`. `alarms.<name>` sets the "
        "limit; null switches the alarm off. An iteration without the metric silences the alarm.",
        grid(
            ("alarm", "metric", "rings", "what it may mean, and what helps"),
            [
                (f"`{watch.limit}`", f"`{watch.metric}`", f"{watch.side} {limits[watch.limit].default}", watch.meaning)
                for watch in WATCHES
            ],
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def groups_of_metrics(source: str) -> list[tuple[str, list[str]]]:
    """Return each comment at the margin of a source text, with the names of the metrics declared below it."""
    groups: list[tuple[str, list[str]]] = []
    above = ""
    for line in source.splitlines():
        if line.startswith("# "):
            comment = line.removeprefix("# ")
            if above.startswith("# "):
                groups[-1] = (f"{groups[-1][0]} {comment}", groups[-1][1])
            else:
                groups.append((comment, []))
        elif (found := re.match(r"(\w+) = Metric\(", line)) and groups:
            groups[-1][1].append(found[1])
        above = line
    return [(comment, names) for comment, names in groups if names]


# Commands


def commands_page() -> str:
    """Return the reference of commands: arguments, options and examples, as `hiper COMMAND -h` shows them."""
    parts = [
        "# Options of commands",
        NOTE.format(source="`hiper.cli`"),
        "This page lists what `hiper COMMAND -h` shows. [Commands](../commands.md) explains them.",
    ]
    for name, command in vars(typer.main.get_command(cli.app))["commands"].items():
        parts += [f"## hiper {name}", markdown(inspect.cleandoc(command.help))]
        if rows := [row_of(p) for p in command.params if not getattr(p, "hidden", False)]:
            parts.append(grid(("argument or option", "default", "meaning"), rows))
        if command.epilog:
            examples = (line.strip() for line in command.epilog.splitlines()[1:])
            parts.append("\n".join(["```", *filter(None, examples), "```"]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def row_of(parameter: Any) -> tuple[str, str, str]:
    """Return the row of an argument or an option in the table of its command."""
    argument = parameter.param_type_name == "argument"
    names = [parameter.metavar.strip("{}[].")] if argument else [*parameter.opts, *parameter.secondary_opts]
    shown_name = ", ".join(f"`{name}`" for name in names)
    if not argument and parameter.metavar:
        shown_name += f" `{parameter.metavar}`"
    default = parameter.show_default
    if not isinstance(default, str):
        plain = parameter.default in (None, False) or callable(parameter.default)
        default = "required" if parameter.required else "" if plain else f"`{parameter.default}`"
    return shown_name, default, markdown(parameter.help or "")


# Fields


def fields_of(kind: type) -> list[Entry]:
    """Return the fields of a model or a dataclass, as documented below each."""
    hints = get_type_hints(kind, include_extras=True)
    texts = documented(kind)
    entries = []
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            default = field.get_default(call_default_factory=True)
            limits = limits_of(field.metadata)
            entries.append(Entry(name, typed(hints[name], limits), shown(default, field.is_required()), texts[name]))
    else:
        for own in dataclasses.fields(cast(Any, kind)):
            entries.append(Entry(own.name, typed(hints[own.name], ""), shown(own.default), texts[own.name]))
    return entries


def documented(kind: type) -> dict[str, str]:
    """Return the docstring below each field of a class, by the field's name.

    Raises:
        ValueError: a field has no docstring.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for node, below in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(node.annotation):
            continue
        if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
            raise ValueError(f"{kind.__name__}.{node.target.id} has no docstring below it")
        texts[node.target.id] = inspect.cleandoc(str(below.value.value)) + choices_of(node.annotation, kind)
    return texts


def choices_of(annotation: ast.expr, kind: type) -> str:
    """Return the list of choices below the alias that a field of ``kind`` has as its type, or nothing."""
    body = ast.parse(inspect.getsource(sys.modules[kind.__module__])).body
    for node, below in pairwise(body):
        named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == ast.unparse(annotation)
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return "\n\n" + str(below.value.value).partition("\n\n")[2].strip()
    return ""


def arguments_of(function: Callable[..., Any]) -> list[Entry]:
    """Return the arguments of a factory, as documented under ``Args``; the split is no option.

    Raises:
        ValueError: an argument is not documented.
    """
    doc = inspect.getdoc(function) or ""
    block = textwrap.dedent(doc.partition("Args:\n")[2].partition("\n\n")[0])
    texts = dict(re.findall(r"^(\w+): (.*(?:\n .*)*)", block, re.MULTILINE))
    hints = get_type_hints(function)
    entries = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in texts:
            raise ValueError(f"{function.__module__}: the argument '{name}' is not documented under Args")
        if name != "split":
            text = re.sub(r"\s*\n\s*", " ", texts[name])
            entries.append(Entry(name, typed(hints[name], ""), shown(parameter.default), text[0].upper() + text[1:]))
    return entries


def typed(hint: Any, limits: str) -> str:
    """Return a type in the words of YAML, with its limits."""
    return f"{type_in_words(hint)}{', ' if limits else ''}{limits}"


def type_in_words(hint: Any) -> str:
    """Return a type in the words of YAML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, limits = type_in_words(arguments[0]), limits_of(arguments[1:])
        return f"{inner} ({limits})" if limits else inner
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_in_words(argument) for argument in arguments))
    if origin is tuple:
        return f"list of {type_in_words(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    plain = {bool: "true or false", int: "integer", float: "number", str: "text", NoneType: "null", Any: "any value"}
    if hint in plain:
        return plain[hint]
    return "text" if hint.__name__ == "PathLike" else "section"


def limits_of(metadata: Iterable[Any]) -> str:
    """Return the limits of a number, or of the length of a list."""
    words = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "min_length": "{} or more"}
    found = [
        words[name].format(value)
        for limit in metadata
        for name in words
        if (value := getattr(limit, name, None)) is not None
    ]
    return ", ".join(found)


def shown(default: Any, required: bool = False) -> str:
    """Return a default as YAML writes it."""
    if required or default is inspect.Parameter.empty or default is dataclasses.MISSING:
        return "required"
    if is_section(type(default)):
        return ""
    if isinstance(default, float):
        return f"`{default:g}`".replace("e-0", "e-").replace("e+0", "e")
    if isinstance(default, tuple | list | Mapping):
        default = list(default) if isinstance(default, tuple | list) else dict(default)
        return f"`{yaml.safe_dump(default, default_flow_style=True, width=1000).strip()}`"
    return f"`{yaml.safe_dump(default).splitlines()[0]}`"


# Markdown


def described(kind: type) -> list[str]:
    """Return the docstring of a class as paragraphs, without its errors."""
    text = (inspect.getdoc(kind) or "").partition("\nRaises:")[0]
    return paragraphs(text)


def paragraphs(text: str, code: str = "") -> list[str]:
    """Return the paragraphs of a docstring; indented ones become blocks of code."""
    blocks: list[str] = []
    for part in re.split(r"\n\n+", text.strip()):
        if part.startswith("    "):
            part = textwrap.dedent(part)
            if blocks and blocks[-1].startswith("```"):
                blocks[-1] = blocks[-1].removesuffix("\n```") + f"\n\n{part}\n```"
            else:
                blocks.append(f"```{code}\n{part}\n```")
        else:
            blocks.append(markdown(part))
    return blocks


def markdown(text: str) -> str:
    """Return a text of a docstring as Markdown."""
    text = re.sub(r":\w+:`[~.]?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def table(entries: Iterable[Entry]) -> str:
    """Return settings as a table."""
    rows = [(f"`{entry.name}`", entry.type, entry.default, in_a_cell(entry.text)) for entry in entries]
    return grid(("key", "type", "default", "meaning"), rows) if rows else "No parameters."


def in_a_cell(text: str) -> str:
    """Return a docstring in one line of Markdown, in the words of YAML; lists keep their lines."""
    parts = re.split(r"\n\n+|\n(?=- )", re.sub(r"\bNone\b", "null", markdown(text)))
    return "<br>".join(re.sub(r"\s*\n\s*", " ", part) for part in parts)


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "studies.md": studies_page,
    "metrics.md": metrics_page,
    "commands.md": commands_page,
}
"""The text of each page."""


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    pages = {FOLDER / name: page() for name, page in PAGES.items()}
    for file, text in {**pages, **recipes.files()}.items():
        if check and (not file.exists() or file.read_text(encoding="utf-8") != text):
            sys.exit(f"{file} is out of date: run `make reference`")
        if not check:
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
