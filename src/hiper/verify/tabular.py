"""A Markov decision process with subgoals, small enough that everything about it can be computed exactly.

Each turn the policy decides as a plan-execute agent does: whether to switch, on SWITCH (and always on the first turn)
which subgoal to follow, and which action to take. After T turns the process ends.

Legend: S states, G subgoals, H = G + 1 previous subgoals (the last: none yet), A actions, T turns, B trajectories (all
that can happen), N parameters (the logits of all decisions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.advantages import Bools, Credit, Floats, Ints, Turns

Complexes = NDArray[np.complex128]
STEP = 1e-30
"""Of complex differentiation: no difference is taken, so that it can be as small as one likes."""


@dataclass(frozen=True)
class Process:
    """The process, and the policy's logits in it."""

    turns: int
    """T"""
    gamma: float
    start_S: Floats
    """Probabilities of the first state."""
    reward_SA: Floats
    next_SAS: Floats
    """Probabilities of the next state."""
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
        switch_rate: float | None = None,
    ) -> Process:
        """Random rewards, transitions and logits.

        Args:
            seed: of the draw.
            states: S.
            subgoals: G.
            actions: A.
            turns: T; the first of them do not change with it.
            gamma: discount per turn.
            branches: states that each action may lead to, and in which the process may begin.
            switch_rate: the same probability of SWITCH everywhere; None: random ones.
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
        )

    @property
    def parameters(self) -> Floats:
        """(N,) all logits: those of switches, of subgoals, of actions."""
        return np.concatenate([part.ravel() for part in (self.switch_SH, self.subgoal_SG, self.action_SGA)])

    def with_parameters(self, parameters_N: NDArray[Any]) -> Process:
        """The same process under another policy (complex logits are allowed, for differentiation)."""
        parts, start = [], 0
        for part in (self.switch_SH, self.subgoal_SG, self.action_SGA):
            parts.append(parameters_N[start : start + part.size].reshape(part.shape))
            start += part.size
        return replace(self, switch_SH=parts[0], subgoal_SG=parts[1], action_SGA=parts[2])

    @property
    def switch_prob_SH(self) -> Floats:
        """P(SWITCH)"""
        probability: Floats = 1.0 / (1.0 + np.exp(-self.switch_SH))
        return probability

    @property
    def subgoal_prob_SG(self) -> Floats:
        """P(subgoal), where one is chosen."""
        return _softmax(self.subgoal_SG)

    @property
    def action_prob_SGA(self) -> Floats:
        """P(action)"""
        return _softmax(self.action_SGA)


@dataclass(frozen=True)
class Values:
    """What is to be expected from each turn on; see :mod:`hiper.advantages.hae` for what each is the value of."""

    low_TSG: Floats
    high_TS: Floats
    switch_TSH: Floats

    def disturbed(self, seed: int, size: float) -> Values:
        """Wrong values: each off by its own normal error of standard deviation ``size``."""
        rng = np.random.default_rng(seed)
        return Values(
            *(part + size * rng.normal(size=part.shape) for part in (self.low_TSG, self.high_TS, self.switch_TSH))
        )


def exact_values(process: Process) -> Values:
    """Backward from the last turn."""
    S, H = process.switch_SH.shape
    G, kind = H - 1, np.result_type(process.switch_SH)
    low_TSG = np.zeros((process.turns, S, G), dtype=kind)
    high_TS = np.zeros((process.turns, S), dtype=kind)
    switch_TSH = np.zeros((process.turns + 1, S, H), dtype=kind)
    beta_SH, subgoal_SG, action_SGA = process.switch_prob_SH, process.subgoal_prob_SG, process.action_prob_SGA
    for t in reversed(range(process.turns)):
        later_SAH = process.gamma * np.einsum("sax,xh->sah", process.next_SAS, switch_TSH[t + 1])
        worth_SGA = process.reward_SA[:, None] + later_SAH[..., :G].transpose(0, 2, 1)
        low_TSG[t] = (action_SGA * worth_SGA).sum(-1)
        high_TS[t] = (subgoal_SG * low_TSG[t]).sum(-1)
        # Before the first subgoal there is nothing to keep: whatever is said, one is chosen.
        kept_SH = np.concatenate([low_TSG[t], high_TS[t][:, None]], axis=1)
        switch_TSH[t] = beta_SH * high_TS[t][:, None] + (1 - beta_SH) * kept_SH
    return Values(low_TSG, high_TS, switch_TSH[:-1])


def exact_gradient(process: Process) -> Floats:
    """(N,) the gradient of the expected return, by complex differentiation of the backward recursion."""
    parameters = process.parameters
    gradient = np.empty(len(parameters))
    for n in range(len(parameters)):
        step: Complexes = parameters.astype(complex)
        step[n] += 1j * STEP
        values = exact_values(process.with_parameters(step))
        gradient[n] = (process.start_S @ values.high_TS[0]).imag / STEP
    return gradient


@dataclass(frozen=True)
class Trajectories:
    """All that can happen: what was in force and what was decided at each turn, and how probable it is."""

    process: Process
    prob_B: Floats
    state_BT: Ints
    previous_BT: Ints
    """The subgoal before the turn; G where there is none yet."""
    switch_BT: Bools
    """SWITCH was said."""
    subgoal_BT: Ints
    action_BT: Ints

    @property
    def boundary_BT(self) -> Bools:
        """A subgoal was chosen."""
        boundary_BT = self.switch_BT.copy()
        boundary_BT[:, 0] = True
        return boundary_BT

    @property
    def segment_turns(self) -> float:
        """Expected turns over expected segments."""
        return float(self.process.turns / (self.prob_B @ self.boundary_BT.sum(axis=1)))

    def turns(self, values: Values, flat: bool = False) -> Turns:
        """What an estimator sees.

        Args:
            values: the critic's.
            flat: for estimators without a hierarchy, whose value is that of the state before all decisions.
        """
        at, state = np.arange(self.process.turns), self.state_BT
        v_switch_BT = values.switch_TSH[at, state, self.previous_BT]
        return Turns(
            mask_BT=np.ones_like(self.switch_BT),
            reward_BT=self.process.reward_SA[state, self.action_BT],
            boundary_BT=self.boundary_BT,
            terminated_B=np.ones(len(state), dtype=bool),
            v_low_BT=v_switch_BT if flat else values.low_TSG[at, state, self.subgoal_BT],
            v_high_BT=values.high_TS[at, state],
            v_switch_BT=v_switch_BT,
            switch_prob_BT=self.process.switch_prob_SH[state, self.previous_BT],
            said_switch_BT=self.switch_BT,
        )

    def gradients(self, credit: Credit) -> Floats:
        """(B, N) the policy gradient that each trajectory estimates.

        Each decision's score function (for logits: what was chosen, as a one-hot vector, minus the probabilities) is
        weighted by its advantage, and by gamma^t, which the gradient of a discounted return asks for and practice
        leaves out.
        """
        process, B = self.process, len(self.prob_B)
        (S, H), G, A = process.switch_SH.shape, process.subgoal_SG.shape[1], process.action_SGA.shape[2]
        switch_BSH, subgoal_BSG, action_BSGA = np.zeros((B, S, H)), np.zeros((B, S, G)), np.zeros((B, S, G, A))
        every, boundary_BT = np.arange(B), self.boundary_BT
        beta_SH, subgoal_SG, action_SGA = process.switch_prob_SH, process.subgoal_prob_SG, process.action_prob_SGA
        for t in range(process.turns):
            s, h, g, a = self.state_BT[:, t], self.previous_BT[:, t], self.subgoal_BT[:, t], self.action_BT[:, t]
            low_B, high_B, switch_B = (
                process.gamma**t * x_BT[:, t]
                for x_BT in (credit.low_BT, credit.high_BT * boundary_BT, credit.switch_BT)
            )
            switch_BSH[every, s, h] += switch_B * (self.switch_BT[:, t] - beta_SH[s, h])
            subgoal_BSG[every, s] += high_B[:, None] * (np.eye(G)[g] - subgoal_SG[s])
            action_BSGA[every, s, g] += low_B[:, None] * (np.eye(A)[a] - action_SGA[s, g])
        return np.concatenate([part.reshape(B, -1) for part in (switch_BSH, subgoal_BSG, action_BSGA)], axis=1)


def enumerate_trajectories(process: Process) -> Trajectories:
    """Every trajectory of positive probability."""
    G = process.subgoal_SG.shape[1]
    beta_SH, subgoal_SG, action_SGA = process.switch_prob_SH, process.subgoal_prob_SG, process.action_prob_SGA
    state = np.flatnonzero(process.start_S)
    prob_B, previous = process.start_S[state], np.full(len(state), G)
    history = np.zeros((len(state), 0, 5), dtype=np.int64)
    for t in range(process.turns):
        # What is decided and what follows, over all trajectories so far, as (B, 2, G, A, S).
        beta_B = beta_SH[state, previous]
        switch_B2 = np.stack([1 - beta_B, beta_B], axis=1)
        fresh_BG = subgoal_SG[state]
        kept_BG = np.eye(G + 1)[previous, :G] if t else fresh_BG
        subgoal_B2G = np.stack([kept_BG, fresh_BG], axis=1)
        # Where the last action leads to does not matter.
        next_BAS = process.next_SAS[state] if t + 1 < process.turns else np.ones((len(state), action_SGA.shape[2], 1))
        joint = np.einsum("b,bq,bqg,bga,bax->bqgax", prob_B, switch_B2, subgoal_B2G, action_SGA[state], next_BAS)
        origin, switch, subgoal, action, following = np.nonzero(joint)
        step = np.stack([state[origin], previous[origin], switch, subgoal, action], axis=1)
        history = np.concatenate([history[origin], step[:, None]], axis=1)
        prob_B, state, previous = joint[origin, switch, subgoal, action, following], following, subgoal
    state_BT, previous_BT, switch_BT, subgoal_BT, action_BT = np.moveaxis(history, 2, 0)
    return Trajectories(process, prob_B, state_BT, previous_BT, switch_BT.astype(bool), subgoal_BT, action_BT)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    weights = np.exp(logits)
    probabilities: NDArray[Any] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
