"""A Markov decision process with subgoals, small enough that everything about it can be computed exactly.

Each turn the policy makes the decisions of a plan-execute agent. It decides whether to switch. On SWITCH, and always on
the first turn, it chooses a subgoal. Then it chooses an action. An action may end the episode. After T turns every
episode is over: either the process terminates, or it would continue and the episode is truncated ("cut").

Legend: S states, G subgoals, H = G + 1 previous subgoals (the last one means none yet), A actions, T turns,
B trajectories (all possible ones), N parameters (the logits of all decisions, or of one kind of decision).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.advantages import Bools, Credit, Floats, Ints, Turns

Complexes = NDArray[np.complex128]
STEP = 1e-30
"""Step of complex differentiation. No difference is taken, so it can be arbitrarily small."""


@dataclass(frozen=True)
class DecisionProcess:
    """A process with subgoals, and the logits of a policy in it."""

    turns: int
    """T, the largest number of turns of an episode."""
    gamma: float
    start_S: Floats
    """Probabilities of the first state."""
    reward_SA: Floats
    next_SAS: Floats
    """Probabilities of the next state, given that the episode continues."""
    end_SA: Floats
    """Probability that the episode ends."""
    switch_SH: Floats
    """Logit of SWITCH."""
    subgoal_SG: Floats
    action_SGA: Floats

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        states: int = 3,
        subgoals: int = 2,
        actions: int = 2,
        turns: int = 4,
        gamma: float = 1.0,
        branches: int = 2,
        ends: float = 0.0,
        switch_rate: float | None = None,
    ) -> DecisionProcess:
        """Draw random rewards, transitions and logits.

        Args:
            seed: seed of the draw.
            states: S.
            subgoals: G.
            actions: A.
            turns: T; a longer process begins like a shorter one.
            gamma: discount per turn.
            branches: number of states that an action may lead to, and of first states; 1: only the policy is random.
            ends: upper bound of the probability that an action ends the episode; 0: all episodes have T turns.
            switch_rate: probability of SWITCH in every state; None: random ones.
        """
        rng = np.random.default_rng(seed)
        next_SAS = np.zeros((states, actions, states))
        for s, a in np.ndindex(states, actions):
            next_SAS[s, a, rng.permutation(states)[:branches]] = rng.dirichlet(np.ones(branches))
        switch_SH = rng.normal(size=(states, subgoals + 1))
        if switch_rate is not None:
            switch_SH[:] = np.log(switch_rate / (1 - switch_rate))
        start_S = np.zeros(states)
        start_S[:branches] = rng.dirichlet(np.ones(branches))
        return cls(
            turns=turns,
            gamma=gamma,
            start_S=start_S,
            reward_SA=rng.normal(size=(states, actions)),
            next_SAS=next_SAS,
            switch_SH=switch_SH,
            subgoal_SG=rng.normal(size=(states, subgoals)),
            action_SGA=rng.normal(size=(states, subgoals, actions)),
            end_SA=ends * rng.random((states, actions)),
        )

    @property
    def parameters(self) -> Floats:
        """All logits (N,): those of switches, of subgoals, of actions."""
        return np.concatenate([part.ravel() for part in (self.switch_SH, self.subgoal_SG, self.action_SGA)])

    def with_parameters(self, parameters_N: NDArray[Any]) -> DecisionProcess:
        """Return the same process under another policy. Logits may be complex, for differentiation."""
        parts, start = [], 0
        for part in (self.switch_SH, self.subgoal_SG, self.action_SGA):
            parts.append(parameters_N[start : start + part.size].reshape(part.shape))
            start += part.size
        return replace(self, switch_SH=parts[0], subgoal_SG=parts[1], action_SGA=parts[2])

    @property
    def switch_prob_SH(self) -> Floats:
        """The probability of SWITCH."""
        probability: Floats = 1.0 / (1.0 + np.exp(-self.switch_SH))
        return probability

    @property
    def subgoal_prob_SG(self) -> Floats:
        """The probability of each subgoal, where one is chosen."""
        return _softmax(self.subgoal_SG)

    @property
    def action_prob_SGA(self) -> Floats:
        """The probability of each action."""
        return _softmax(self.action_SGA)


@dataclass(frozen=True)
class Values:
    """Expected returns from each turn on; :mod:`hiper.advantages.hae` defines the three values."""

    low_TSG: Floats
    high_TS: Floats
    switch_TSH: Floats

    @property
    def kept_TSH(self) -> Floats:
        """V_low of the previous subgoal; before the first subgoal V_high, because one is chosen in any case."""
        return np.concatenate([self.low_TSG, self.high_TS[..., None]], axis=2)

    def disturbed(self, seed: int, size: float) -> Values:
        """Return wrong values: each has its own normal error of standard deviation ``size``."""
        rng = np.random.default_rng(seed)
        return Values(
            *(part + size * rng.normal(size=part.shape) for part in (self.low_TSG, self.high_TS, self.switch_TSH))
        )


def exact_values(process: DecisionProcess, rest_SH: Floats | None = None) -> Values:
    """Compute exact values backward from the last turn.

    Args:
        process: of T turns.
        rest_SH: value of a turn after the last; None: zero.
    """
    S, H = process.switch_SH.shape
    G, kind = H - 1, np.result_type(process.switch_SH)
    low_TSG = np.zeros((process.turns, S, G), dtype=kind)
    high_TS = np.zeros((process.turns, S), dtype=kind)
    switch_TSH = np.zeros((process.turns + 1, S, H), dtype=kind)
    if rest_SH is not None:
        switch_TSH[-1] = rest_SH
    going_on_SAS = (1 - process.end_SA)[..., None] * process.next_SAS
    beta_SH, subgoal_SG, action_SGA = process.switch_prob_SH, process.subgoal_prob_SG, process.action_prob_SGA
    for t in reversed(range(process.turns)):
        later_SAH = process.gamma * np.einsum("sax,xh->sah", going_on_SAS, switch_TSH[t + 1])
        worth_SGA = process.reward_SA[:, None] + later_SAH[..., :G].transpose(0, 2, 1)
        low_TSG[t] = (action_SGA * worth_SGA).sum(-1)
        high_TS[t] = (subgoal_SG * low_TSG[t]).sum(-1)
        # Before the first subgoal there is none to keep, and one is chosen in any case.
        kept_SH = np.concatenate([low_TSG[t], high_TS[t][:, None]], axis=1)
        switch_TSH[t] = beta_SH * high_TS[t][:, None] + (1 - beta_SH) * kept_SH
    return Values(low_TSG, high_TS, switch_TSH[:-1])


def exact_gradient(process: DecisionProcess, rest_SH: Floats | None = None) -> Floats:
    """Compute the gradient (N,) of the expected return by complex differentiation of the backward recursion.

    Args:
        process: of T turns.
        rest_SH: value of a turn after the last, independent of the policy before it; None: zero.
    """
    parameters = process.parameters
    gradient = np.empty(len(parameters))
    for n in range(len(parameters)):
        step: Complexes = parameters.astype(complex)
        step[n] += 1j * STEP
        values = exact_values(process.with_parameters(step), rest_SH)
        gradient[n] = (process.start_S @ values.high_TS[0]).imag / STEP
    return gradient


@dataclass(frozen=True)
class Scores:
    """Gradients of the log-probability of each decision with respect to the logits of its kind.

    For logits this is the decision as a one-hot vector, minus the probabilities. Where no such decision was made, the
    score is arbitrary, because it is multiplied by an advantage of zero.
    """

    switch_BTN: Floats
    subgoal_BTN: Floats
    action_BTN: Floats


@dataclass(frozen=True, eq=False)
class Trajectories:
    """All possible trajectories: states and decisions of each turn, and the probability of each trajectory."""

    process: DecisionProcess
    prob_B: Floats
    ended_B: Bools
    """Whether an action ended the episode; False: T turns were played without such an end."""
    mask_BT: Bools
    """Whether the turn was played; all arrays below are zero where it was not."""
    state_BT: Ints
    previous_BT: Ints
    """The subgoal before the turn; G means none yet."""
    switch_BT: Bools
    """Whether the policy said SWITCH."""
    subgoal_BT: Ints
    action_BT: Ints

    @property
    def boundary_BT(self) -> Bools:
        """Whether a subgoal was chosen."""
        boundary_BT = self.switch_BT.copy()
        boundary_BT[:, 0] = True
        return boundary_BT

    @property
    def segment_turns(self) -> float:
        """Expected number of turns divided by expected number of segments."""
        return float((self.prob_B @ self.mask_BT.sum(axis=1)) / (self.prob_B @ self.boundary_BT.sum(axis=1)))

    def kept_low(self, values: Values) -> Floats:
        """Return V_low (B, T) of the subgoal before the turn, whether or not it was kept."""
        return values.kept_TSH[np.arange(self.process.turns), self.state_BT, self.previous_BT]

    def turns(self, values: Values, cut: bool = False) -> Turns:
        """Return what an estimator sees.

        Args:
            values: the values of the critic.
            cut: whether episodes that no action ended are truncated; False: they terminate after T turns.
        """
        at, state = np.arange(self.process.turns), self.state_BT
        v_switch_BT = values.switch_TSH[at, state, self.previous_BT]
        return Turns(
            mask_BT=self.mask_BT,
            reward_BT=self.process.reward_SA[state, self.action_BT],
            boundary_BT=self.boundary_BT,
            terminated_B=self.ended_B if cut else np.ones_like(self.ended_B),
            v_low_BT=values.low_TSG[at, state, self.subgoal_BT],
            v_high_BT=values.high_TS[at, state],
            v_switch_BT=v_switch_BT,
            value_BT=v_switch_BT,  # that of the state before all decisions
            switch_prob_BT=self.process.switch_prob_SH[state, self.previous_BT],
            said_switch_BT=self.switch_BT,
        )

    @cached_property
    def scores(self) -> Scores:
        """The scores of every decision of every trajectory."""
        process, state_BT, subgoal_BT = self.process, self.state_BT, self.subgoal_BT
        beta_SH = process.switch_prob_SH
        # A switch has one logit, that of SWITCH. The scores of KEEP and of SWITCH have the shape (S, H, 2, N).
        said = np.array([0.0, 1.0]) - beta_SH[..., None]
        switch = said[..., None] * np.eye(beta_SH.size).reshape(*beta_SH.shape, 1, -1)
        return Scores(
            switch[state_BT, self.previous_BT, self.switch_BT.astype(np.int64)],
            _scores_of(process.subgoal_prob_SG)[state_BT, subgoal_BT],
            _scores_of(process.action_prob_SGA)[state_BT, subgoal_BT, self.action_BT],
        )

    def gradients(self, credit: Credit, discounted: bool = True) -> Floats:
        """Compute the policy gradient (B, N) that each trajectory estimates: scores weighted by advantages.

        Args:
            credit: the advantages.
            discounted: whether to weight by gamma^t too, as the gradient of a discounted return demands. In practice
                the factor is left out.
        """
        weight_T = (self.process.gamma if discounted else 1.0) ** np.arange(self.process.turns)
        pairs = (
            (credit.switch_BT, self.scores.switch_BTN),
            (credit.high_BT, self.scores.subgoal_BTN),
            (credit.low_BT, self.scores.action_BTN),
        )
        parts = [np.einsum("bt,btn->bn", weight_T * advantage_BT, score_BTN) for advantage_BT, score_BTN in pairs]
        return np.concatenate(parts, axis=1)


def enumerate_trajectories(process: DecisionProcess) -> Trajectories:
    """Enumerate all trajectories of positive probability."""
    S, G = process.subgoal_SG.shape
    beta_SH, subgoal_SG, action_SGA = process.switch_prob_SH, process.subgoal_prob_SG, process.action_prob_SGA
    state = np.flatnonzero(process.start_S)
    prob_B, previous = process.start_S[state], np.full(len(state), G)
    history = np.zeros((len(state), process.turns, 5), dtype=np.int64)
    over: list[tuple[Floats, Bools, Ints, Ints]] = []
    for t in range(process.turns):
        # Joint probability of the decisions and of what follows, for all unfinished trajectories: (B, 2, G, A, S + 1).
        # The last entry of the last axis is an end of the episode. The state after the last turn does not matter.
        last = t + 1 == process.turns
        next_SAS = np.eye(S)[np.zeros_like(process.end_SA, dtype=np.int64)] if last else process.next_SAS
        end_SA1 = process.end_SA[..., None]
        follows_SAX = np.concatenate([(1 - end_SA1) * next_SAS, end_SA1], axis=2)
        beta_B = beta_SH[state, previous]
        switch_B2 = np.stack([1 - beta_B, beta_B], axis=1)
        fresh_BG = subgoal_SG[state]
        kept_BG = np.eye(G + 1)[previous, :G] if t else fresh_BG
        subgoal_B2G = np.stack([kept_BG, fresh_BG], axis=1)
        joint = np.einsum(
            "b,bq,bqg,bga,bax->bqgax", prob_B, switch_B2, subgoal_B2G, action_SGA[state], follows_SAX[state]
        )
        origin, switch, subgoal, action, following = np.nonzero(joint)
        prob_B = joint[origin, switch, subgoal, action, following]
        history = history[origin]
        history[:, t] = np.stack([state[origin], previous[origin], switch, subgoal, action], axis=1)
        ended = following == S
        done = ended | last
        over.append((prob_B[done], ended[done], np.full(done.sum(), t + 1), history[done]))
        prob_B, history, state, previous = (x[~done] for x in (prob_B, history, following, subgoal))
    prob_B, ended_B, length_B, history = (np.concatenate(parts) for parts in zip(*over, strict=True))
    mask_BT = np.arange(process.turns) < length_B[:, None]
    state_BT, previous_BT, switch_BT, subgoal_BT, action_BT = np.moveaxis(history, 2, 0)
    return Trajectories(
        process, prob_B, ended_B, mask_BT, state_BT, previous_BT, switch_BT.astype(bool), subgoal_BT, action_BT
    )


def _scores_of(prob: Floats) -> Floats:
    """Compute gradients (..., K, N) of the logarithms of (..., K) probabilities with respect to all N logits."""
    chosen = np.eye(prob.size).reshape(*prob.shape, prob.size)
    scores: Floats = chosen - (prob[..., None] * chosen).sum(axis=-2, keepdims=True)
    return scores


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    weights = np.exp(logits)
    probabilities: NDArray[Any] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
