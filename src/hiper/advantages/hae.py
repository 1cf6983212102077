"""Hierarchical advantage estimation (HAE): credit for the executor, the planner and the switch decision.

Source: Peng, Liu, Zhou, Fleming, Wang, Garcia, Hong, "HiPER: Hierarchical Reinforcement Learning with Explicit
Credit Assignment for Large Language Model Agents", arXiv 2602.16165, and its reference implementation.

The turns of an episode form segments k = 0, 1, ...: turns s_k .. e_k under one subgoal, d_k of them. After a segment
comes the value

    v'_k(x) = V_high(s_{k+1})    if another segment follows
            = 0                  if the environment ended the episode
            = x or 0             if it was truncated (``bootstrap_truncated``); x is the last value, see the table below

Executor, inside a segment. The trace is cut at the segment's end:

    delta_t   = r_t + gamma * V_low(t+1) - V_low(t)           for t < e_k
              = r_t + gamma * v'_k(V_low(t)) - V_low(t)       for t = e_k
    A_low(t)  = delta_t + gamma * lambda_turn * A_low(t+1)

Planner, across segments (a semi-Markov decision process):

    delta_k   = sum_i gamma^i r_{s_k+i} + gamma^{d_k} * v'_k(V_high(s_k)) - V_high(s_k)
    A_high(k) = delta_k + gamma^{d_k} * lambda_seg * A_high(k+1)

Switch decision, in one of two published forms:

    R_switch(t) = r_t + gamma * R_switch(t+1), starting from v'_k(V_high(s_k)) after e_k
    A_switch(t) = R_switch(t) - V_switch(t)                                    `termination-value` (the code's form)
    A_switch(t) = (1[q_t = SWITCH] - beta_t) * (V_high(t) - V_low(t))          `value-gap` (the paper's form)

Each ablation is one setting. ``switch_form: none`` gives the switch decision no credit. ``time_scales: one`` judges all
three decisions by the same return over turns, each against its own value. The return is the target of turn-level GAE
on V_low. (:class:`hiper.advantages.gae.TurnGAE` gives up the decisions as well.)

    R(t)        = r_t + gamma * ((1 - lambda_turn) * V_low(t+1) + lambda_turn * R(t+1))       across boundaries
    A_low(t)    = R(t) - V_low(t),  A_high(k) = R(s_k) - V_high(s_k),  A_switch(t) = R(t) - V_switch(t)

One parameter goes beyond the paper. With ``lambda_boundary`` > 0 the traces of executor and switch decision continue
past the end of a segment, decayed once more by ``lambda_boundary``, as the planner's trace is by lambda_seg:

    v'_k  becomes  (1 - lambda_boundary) * V_high(s_{k+1}) + lambda_boundary * R(s_{k+1})    if another segment follows

R is R_switch, or A_low + V_low. Where V_high is exact, the expectation does not change, and the estimate stays
unbiased. Where V_high is wrong, credit depends on it less. 0 is the paper's estimator. With 1, lambda_turn = 1 and no
bootstrap, both depend on the returns to the episode's end alone.

Departures from the reference: none in the numbers. The reference gathers segments episode by episode and loops over
each. Here the targets R_low = A_low + V_low, R_high = A_high + V_high and R_switch are lambda-returns
(:func:`hiper.advantages.recurrence.lambda_returns`). They differ only in lambda_t and in the value at a truncated end:

    lambda_t    inside a segment   at its end         at the episode's end    last value
    low         lambda_turn        lambda_boundary    0                       V_low(t)
    high        1                  lambda_seg         0                       V_high(s_k)
    switch      1                  lambda_boundary    0                       V_high(s_k)

For `high`, lambda_t = 1 inside a segment discounts and sums the segment's rewards. So R at s_k is
G_k + gamma^{d_k} * ((1 - lambda_seg) * V_high(s_{k+1}) + lambda_seg * R_high(k+1)), the planner's recursion above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np

from hiper.advantages.checks import check_choices, check_fractions, needed
from hiper.advantages.estimator import Estimator
from hiper.advantages.normalize import normalized
from hiper.advantages.recurrence import flat_mix, following, lambda_returns
from hiper.advantages.types import Credit, Floats, Turns
from hiper.advantages.values import HIGH, LOW, SWITCH, Critic, Head
from hiper.errors import UserError

SwitchForm: TypeAlias = Literal["termination-value", "value-gap", "none"]
TimeScales: TypeAlias = Literal["two", "one"]


@dataclass(frozen=True)
class HAE(Estimator):
    """Hierarchical advantage estimation. The module's docstring states the formulas.

    Raises:
        UserError: A parameter is out of range.
    """

    type: ClassVar[str] = "hae"
    critic: ClassVar[Critic] = "decisions"

    gamma: float = 1.0
    """Discount per turn."""
    lambda_turn: float = 1.0
    """Trace decay of the executor, per turn inside a segment."""
    lambda_seg: float = 0.95
    """Trace decay of the planner, per segment."""
    switch_form: SwitchForm = "termination-value"
    """The advantage of the switch decision: one of the two published forms, or ``none``."""
    bootstrap_truncated: bool = True
    """If true, bootstrap truncated episodes from their last value; otherwise treat truncation as termination."""
    normalize: bool = False
    """Normalise each of the three advantages (:func:`hiper.advantages.normalize.normalized`)."""
    time_scales: TimeScales = "two"
    """``one``: a single return over turns judges all three decisions, and ``lambda_seg`` is not used."""
    lambda_boundary: float = 0.0
    """Trace decay of the executor and the switch decision at the end of a segment; 0 cuts the trace, as published."""

    def __post_init__(self) -> None:
        check_fractions(self, "gamma", "lambda_turn", "lambda_seg", "lambda_boundary")
        check_choices(self, switch_form=SwitchForm, time_scales=TimeScales)
        if self.time_scales == "one" and self.lambda_boundary:
            raise UserError(
                f"lambda_boundary is {self.lambda_boundary}, but with time_scales 'one' no trace stops at boundaries; "
                "leave one of the two out"
            )

    @property
    def heads(self) -> tuple[Head, ...]:
        """V_low and V_high; V_switch too in the form that reads and trains it."""
        return (LOW, HIGH, SWITCH) if self.switch_form == "termination-value" else (LOW, HIGH)

    def unscaled(self) -> Self:
        """Return the same estimator without normalisation."""
        return replace(self, normalize=False)

    def forms(self) -> Mapping[str, Self]:
        """Return the published form of the switch advantage, the other one, and one time scale."""
        published = replace(self, switch_form="termination-value", time_scales="two")
        return {
            "HAE": published,
            "HAE, value-gap": replace(published, switch_form="value-gap"),
            "HAE, one scale": replace(published, time_scales="one", lambda_boundary=0.0),
        }

    def __call__(self, turns: Turns) -> Credit:
        """Compute the credit of every decision of ``turns``.

        Raises:
            ValueError: ``turns`` lacks an array that this form needs.
        """
        v_low_BT = needed(turns.v_low_BT, "v_low_BT", "HAE")
        v_high_BT = needed(turns.v_high_BT, "v_high_BT", "HAE")
        if self.time_scales == "two":
            low, high, switch = self._mixes(turns, v_low_BT, v_high_BT)
        else:
            low = high = switch = flat_mix(turns, v_low_BT, self.lambda_turn, self.bootstrap_truncated)

        return_switch_BT = None
        if self.switch_form == "termination-value":
            v_switch_BT = needed(turns.v_switch_BT, "v_switch_BT", "the termination-value form")
            return_low_BT, return_high_BT, return_switch_BT = lambda_returns(
                turns.reward_BT, self.gamma, low, high, switch
            )
            switch_BT = return_switch_BT - v_switch_BT
        else:
            return_low_BT, return_high_BT = lambda_returns(turns.reward_BT, self.gamma, low, high)
            gap = self.switch_form == "value-gap"
            switch_BT = _value_gap(turns, v_low_BT, v_high_BT) if gap else np.zeros_like(v_low_BT)

        credit = Credit(
            low_BT=return_low_BT - v_low_BT,
            high_BT=np.where(turns.boundary_BT, return_high_BT - v_high_BT, 0.0),
            switch_BT=switch_BT,
            return_low_BT=return_low_BT,
            return_high_BT=np.where(turns.boundary_BT, return_high_BT, 0.0),
            return_switch_BT=return_switch_BT,
        )
        return normalized(credit, turns) if self.normalize else credit

    def _mixes(self, turns: Turns, v_low_BT: Floats, v_high_BT: Floats) -> list[tuple[Floats, Floats]]:
        """Return the pairs (v, lambda) of executor, planner and switch for :func:`lambda_returns`."""
        boundary_BT = turns.boundary_BT
        # The value after a turn is V_low inside a segment and V_high at its end. After the episode's last turn it is
        # zero, because padding is zero.
        after_low_BT = following(np.where(boundary_BT, v_high_BT, v_low_BT))
        after_high_BT = after_low_BT.copy(order="K")
        inside_BT = following((turns.mask_BT & ~boundary_BT).astype(np.float64))  # 1 where the segment goes on
        lambda_low_BT = np.where(inside_BT, self.lambda_turn, self.lambda_boundary)
        lambda_high_BT = np.where(inside_BT, 1.0, self.lambda_seg)
        lambda_switch_BT = np.where(inside_BT, 1.0, self.lambda_boundary)
        if self.bootstrap_truncated:
            # A truncated episode is followed by its last value, with nothing to mix it with.
            ends = cut_N, _ = turns.cut_ends
            after_low_BT[ends] = v_low_BT[ends]
            after_high_BT[ends] = v_high_BT[cut_N, turns.last_boundary_B[cut_N]]
            for lambda_BT in (lambda_low_BT, lambda_high_BT, lambda_switch_BT):
                lambda_BT[ends] = 0.0
        return [(after_low_BT, lambda_low_BT), (after_high_BT, lambda_high_BT), (after_high_BT, lambda_switch_BT)]


def _value_gap(turns: Turns, v_low_BT: Floats, v_high_BT: Floats) -> Floats:
    """Return (1[q_t = SWITCH] - beta_t) * (V_high(t) - V_low(t)).

    Suppose that V_low is always the value of the subgoal before the turn. Then this advantage, times the gradient of
    log P(q_t), has the expectation (gradient of beta_t) * gap: the policy switches more where a new subgoal is worth
    more. But V_low(t) is read behind the subgoal of turn t. After SWITCH that is the new subgoal, whose gap is zero on
    average. So only the fraction beta_t of the expectation remains (`hiper verify` measures it).
    """
    said_BT = needed(turns.said_switch_BT, "said_switch_BT", "the value-gap form")
    beta_BT = needed(turns.switch_prob_BT, "switch_prob_BT", "the value-gap form")
    return (said_BT - beta_BT) * (v_high_BT - v_low_BT)
