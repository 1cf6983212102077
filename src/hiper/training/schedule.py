"""What depends on the number of iterations done: learning rates, evaluations, checkpoints."""

from __future__ import annotations

from hiper.config import Config


def splits_due(config: Config, done: int) -> tuple[str, ...]:
    """The splits to be evaluated after ``done`` iterations."""
    evaluation = config.evaluation
    always = done in (0, config.training.iterations)
    return evaluation.splits if always or (evaluation.every and done % evaluation.every == 0) else ()


def checkpoint_due(config: Config, done: int) -> bool:
    """Whether to save a checkpoint after ``done`` iterations."""
    return done == config.training.iterations or done % config.training.checkpoint_every == 0


def lr_scales(config: Config, iteration: int) -> tuple[float, float]:
    """Factors on the learning rates of policy and critic in an iteration, counted from 0.

    First the critic learns alone; then the policy's rate rises linearly. Both fall linearly to the end.
    """
    learner, total = config.learner, config.training.iterations
    fall = 1.0 - (1.0 - learner.final_lr_fraction) * iteration / max(1, total - 1)
    begun = iteration + 1 - learner.critic_warmup_iterations
    rise = min(1.0, max(0, begun) / (learner.warmup_iterations + 1))
    return rise * fall, fall
