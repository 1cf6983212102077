"""The schedule of a run: evaluations, checkpoints and learning rates by the number of iterations done."""

from __future__ import annotations

from hiper.config import Config


def splits_due(config: Config, done: int) -> tuple[str, ...]:
    """Return the splits to evaluate after ``done`` iterations."""
    evaluation = config.evaluation
    always = done in (0, config.training.iterations)
    return evaluation.splits if always or (evaluation.every and done % evaluation.every == 0) else ()


def tasks_due(config: Config, done: int) -> int | None:
    """Return the number of tasks per split in an evaluation after ``done`` iterations. None: all tasks."""
    return config.evaluation.final_tasks if done in (0, config.training.iterations) else config.evaluation.tasks


def checkpoint_due(config: Config, done: int, seconds: float) -> bool:
    """Return whether to save a checkpoint after ``done`` iterations, ``seconds`` after the last save."""
    training = config.training
    late = training.checkpoint_minutes is not None and seconds >= 60 * training.checkpoint_minutes
    return late or done == training.iterations or done % training.checkpoint_every == 0


def lr_scales(config: Config, iteration: int) -> tuple[float, float]:
    """Return the factors on the learning rates of policy and critic in an iteration, counted from 0.

    At first only the critic learns. Then the policy's rate rises linearly. Both rates fall linearly to the end.
    """
    learner, total = config.learner, config.training.iterations
    fall = 1.0 - (1.0 - learner.final_lr_fraction) * iteration / max(1, total - 1)
    begun = iteration + 1 - learner.critic_warmup_iterations
    rise = min(1.0, max(0, begun) / (learner.warmup_iterations + 1))
    return rise * fall, fall
