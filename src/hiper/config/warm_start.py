"""The settings of the warm start."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from hiper.validation import COOLEST, HOTTEST, StrictModel

Lapse: TypeAlias = Literal["stray", "slip", "stale-subgoal"]
"""A kind of deliberate mistake in a demonstration.

- ``stray``: play a random other action.
- ``slip``: make a likely mistake, as the environment's expert suggests it.
- ``stale-subgoal``: follow a subgoal of an earlier turn.
"""

LAPSES: tuple[Lapse, ...] = ("stray", "slip", "stale-subgoal")
"""All kinds of lapses."""


class ImperfectConfig(StrictModel):
    """A last stage of the warm start, which imitates the lapses too.

    The policy then starts as a player who makes mistakes. It explores and can improve, and it keeps what it has learned
    to see.
    """

    epochs: float = Field(0.0, ge=0, le=1e5)
    """Passes over the demonstrated tasks. 0: there is no such stage, unless ``turns`` is set."""
    turns: int | None = Field(None, ge=1, le=1_000_000_000)
    """The number of turns to imitate, in place of ``epochs``. None: ``epochs`` decides."""
    perturb: float = Field(0.5, ge=0, le=1)
    """The probability of a lapse at each turn."""
    lapses: tuple[Lapse, ...] | None = None
    """The kinds of lapses. None: those of ``warm_start.lapses``.

    If a lapse loses the episode, the turns that led to it are imitated too.
    """
    lr: float = Field(5e-4, gt=0, le=10)
    """The learning rate."""


class DaggerConfig(StrictModel):
    """A stage in which the policy plays, and imitates what the expert would have done (:mod:`hiper.imitation.dagger`).

    It comes after the demonstrations. The policy learns what to do in states to which its own mistakes lead.
    """

    rounds: int = Field(0, ge=0, le=100_000)
    """How often the policy plays the demonstrated tasks, and then imitates the expert. 0: there is no such stage."""
    temperature: float = Field(1.0, ge=COOLEST, le=HOTTEST)
    """The temperature at which the policy plays."""
    lr: float = Field(5e-4, gt=0, le=10)
    """The learning rate."""


WARM_START_PREFIXES = ("seed", "env.", "prompt.", "model.", "warm_start.", "learner.max_grad_norm", "learner.lora")
"""Prefixes of the settings a warm start depends on. Other settings may change without invalidating it."""


class WarmStartConfig(StrictModel):
    """Supervised fine-tuning on demonstrations of the expert, before reinforcement learning."""

    tasks: int = Field(64, ge=0, le=1_000_000_000)
    """The number of training tasks that the expert demonstrates. 0: there is no warm start."""
    perturb: float = Field(0.1, ge=0, le=1)
    """The probability of a lapse at each turn. Lapses show how to recover; they are not imitated."""
    lapses: tuple[Lapse, ...] = LAPSES
    """The kinds of lapses, drawn with equal probability: ``stray``, ``slip``, ``stale-subgoal``."""
    epochs: float = Field(3.0, gt=0, le=1e5)
    """Passes over the demonstrated tasks. Each pass plays the tasks again with other lapses."""
    turns: int | None = Field(None, ge=1, le=1_000_000_000)
    """The number of turns to imitate, in place of ``epochs``. None: ``epochs`` decides.

    This gives equal practice to environments with short and with long episodes.
    """
    batch_turns: int = Field(64, ge=1, le=1_000_000)
    """The number of turns in a batch."""
    lr: float = Field(1e-3, gt=0, le=10)
    """The learning rate."""
    prompt_loss: float = Field(0.0, ge=0, le=1)
    """The weight of the language-modelling loss on prompts. It helps models that start from random weights."""
    rename: float = Field(0.0, ge=0, le=1)
    """The share of turns in which rare words, or parts of words, are exchanged (:mod:`hiper.imitation.renaming`).

    It teaches a nano model to copy and compare words that it meets too rarely to learn each.
    """
    shipped: bool = True
    """Whether `hiper train` may begin from a warm start that ships with the package.

    It does so only where one was made under exactly these settings and this seed. `hiper sft` makes it anew.
    """
    dagger: DaggerConfig = DaggerConfig()
    """The stage after the demonstrations, in which the policy plays and the expert corrects it."""
    imperfect: ImperfectConfig = ImperfectConfig()
    """The last stage, which imitates lapses too."""
