"""The commands that show what there is: `recipes`, `tasks`, `data`."""

from __future__ import annotations

import sys

import typer

from hiper.cli import parameters as given
from hiper.cli.program import command, make_display, say
from hiper.errors import UserError


@command("hiper recipes", "hiper recipes quickstart > mine.yaml")
def recipes(name: given.ShippedRecipe = None) -> None:
    """List the shipped recipes, or show one of them."""
    from hiper.config import recipe_names, recipe_summary, recipe_text

    if name is not None:
        typer.echo(recipe_text(name), nl=False)
        return
    names = recipe_names()
    width = max(map(len, names))
    for known in names:
        say(f"{known:{width}}  {recipe_summary(known)}", indent=width + 2)


@command()
def tasks(env: given.Env, options: given.Options = None, split: given.Split = None) -> None:
    """List the tasks of an environment, id and type, in the order of its panel.

    The hash of the panel goes to standard error.
    """
    with make_display(stderr=True).bar(f"opening {env}"):
        from hiper import envs
        from hiper.config import apply_overrides

        chosen = {} if split is None else {"split": split}
        made = envs.make(env, **apply_overrides(chosen, options or []))
    for task in made.panel:
        if sys.stdout.isatty():
            say(f"{task.id}  {task.type}", indent=4)
        else:
            typer.echo(f"{task.id}\t{task.type}")
    official = {True: ", the official panel", False: ", NOT the official panel of this name", None: ""}
    say(f"{made.panel.name}: {len(made.panel)} tasks, sha256 {made.panel.hash}{official[made.official]}", err=True)


@command("hiper data", "hiper data alfworld --get games")
def data(
    env: given.DataEnv = None,
    get: given.Get = None,
    folder: given.DataFolder = None,
) -> None:
    """Show which official data are installed, and verify their checksums; with --get, download them."""
    from hiper.commands.data import get_data, show_data
    from hiper.envs.registry import names_with_data

    display = make_display()
    if get is not None:
        if env is None:
            raise UserError("name the environment too: hiper data ENV --get SET")
        get_data(env, get, folder, display)
    elif env is None and folder is not None:
        raise UserError("name the environment too: hiper data ENV --folder FOLDER")
    right = [show_data(name, folder, display, only=get) for name in ([env] if env else names_with_data())]
    if not all(right):
        raise typer.Exit(1)
