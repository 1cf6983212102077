"""From turns to tokens: the one place that decides which token gets which advantage.

| token                                | valid response               | invalid response |
|--------------------------------------|------------------------------|------------------|
| switch                               | A_switch                     | A_low            |
| subgoal                              | A_high at a boundary, else - | A_low            |
| action                               | A_low                        | A_low            |
| other (between blocks, end of text)  | -                            | A_low            |
| thinking                             | - or A_low                   | - or A_low       |

"-" means no loss. A kept subgoal is a copy, not a decision. An invalid response has no separate decisions, so all its
tokens get the turn's A_low (arXiv 2602.16165 and its reference implementation). Undivided credit
(:attr:`Credit.undivided`) treats every response like that, or gives each token an advantage of its own.

Thinking has no loss, whatever the response and the credit, unless ``thinking`` asks for it. It is then credited with
the action. HAE reads V_low behind the subgoal, after the thoughts. So its A_low says how good the action was, given the
thoughts, and with exact values it is zero for them on average. An undivided credit of turns or episodes compares with
what was known before the response, and judges the thoughts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiper.advantages.checks import needed
from hiper.advantages.types import Bools, Credit, Floats, TokenKind, Turns


@dataclass(frozen=True, slots=True, eq=False)
class ResponseTokens:
    """The tokens of one response: one training row."""

    episode: int
    """The row of the (B, T) arrays."""
    turn: int
    """The column of the (B, T) arrays."""
    kinds: NDArray[np.int8]
    """A :class:`TokenKind` per response token."""
    length: int
    """The number of tokens sampled; ``kinds`` must have as many."""
    valid: bool
    """The response has the right form, so that its decisions are known. An action of the right form that the
    environment does not understand is a decision too. An invalid response gets one credit, whatever its kinds."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenCredit:
    """The input of the policy loss for one response. Both arrays have one entry per response token."""

    advantages: Floats
    """Zero where there is no loss."""
    mask: Bools
    """The token has a loss."""


def spread(
    credit: Credit, turns: Turns, responses: Sequence[ResponseTokens], *, thinking: bool = False
) -> list[TokenCredit]:
    """Spread ``credit`` over the tokens of ``responses``, one response for every turn played. The order is theirs.

    Args:
        credit: The credit of each turn, or of each token.
        turns: The turns.
        responses: The tokens to credit.
        thinking: Whether tokens of thinking are credited, with the action. False: they have no loss.

    Raises:
        ValueError: Credit, turns and responses do not fit together: a played turn without a response or with two, a
            response to a turn not played, a length that is not the sampled one, an unknown kind, a valid response
            without the tokens of a decision or with decisions out of order, or an advantage that is NaN or infinite.
    """
    episode_N, turn_N = _check_coverage(turns, responses)
    kind_of_token, lengths_N = _kinds(responses)
    row_of_token = np.repeat(np.arange(len(responses)), lengths_N)
    divided_N = np.array([response.valid and not credit.undivided for response in responses], dtype=bool)
    boundary_N = turns.boundary_BT[episode_N, turn_N]
    _check_decisions(responses, kind_of_token, row_of_token, divided_N, boundary_N)
    cuts = np.cumsum(lengths_N)[:-1]

    # The table above, K entries per response: the advantage of each kind of token, and whether it has a loss.
    low_N, high_N, switch_N = (
        _values(name, getattr(credit, name), turns)[episode_N, turn_N] for name in ("low_BT", "high_BT", "switch_BT")
    )
    value_NK = np.zeros((len(responses), len(TokenKind)))
    value_NK[:, TokenKind.SWITCH] = switch_N
    value_NK[:, TokenKind.SUBGOAL] = np.where(boundary_N, high_N, 0.0)
    value_NK[:, TokenKind.ACTION] = low_N
    loss_NK = np.zeros(value_NK.shape, dtype=bool)
    loss_NK[:, TokenKind.SWITCH] = True
    loss_NK[:, TokenKind.SUBGOAL] = boundary_N
    loss_NK[:, TokenKind.ACTION] = True
    value_NK[~divided_N] = low_N[~divided_N, None]
    loss_NK[~divided_N] = True
    value_NK[:, TokenKind.THINKING] = np.where(thinking, low_N, 0.0)
    loss_NK[:, TokenKind.THINKING] = thinking

    if credit.token_BK is None:
        advantages = np.split(value_NK[row_of_token, kind_of_token], cuts)
    else:
        advantages = _of_tokens(credit.token_BK, turns, responses, episode_N, turn_N)
    masks = np.split(loss_NK[row_of_token, kind_of_token], cuts)
    if credit.token_BK is not None:
        advantages = [np.where(mask, advantage, 0.0) for advantage, mask in zip(advantages, masks, strict=True)]
    return [TokenCredit(advantage, mask) for advantage, mask in zip(advantages, masks, strict=True)]


def _of_tokens(
    token_BK: Floats,
    turns: Turns,
    responses: Sequence[ResponseTokens],
    episode_N: NDArray[np.intp],
    turn_N: NDArray[np.intp],
) -> list[Floats]:
    """Cut the advantages of tokens into responses."""
    tokens_BT = needed(turns.tokens_BT, "tokens_BT", "credit per token")
    stop_BT = tokens_BT.cumsum(axis=1)
    advantages = []
    for response, b, t in zip(responses, episode_N, turn_N, strict=True):
        if response.length != tokens_BT[b, t]:
            raise ValueError(f"{_where(response)}: credit for {tokens_BT[b, t]} tokens, {response.length} were sampled")
        advantages.append(token_BK[b, stop_BT[b, t] - response.length : stop_BT[b, t]])
        if not np.isfinite(advantages[-1]).all():
            raise ValueError(f"{_where(response)}: credit.token_BK is NaN or infinite")
    return advantages


def _check_coverage(turns: Turns, responses: Sequence[ResponseTokens]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Check that responses are to every played turn once; return the episode and the turn of each."""
    seen_BT = np.zeros_like(turns.mask_BT)
    B, T = seen_BT.shape
    for response in responses:
        if not (0 <= response.episode < B and 0 <= response.turn < T):
            raise ValueError(f"{_where(response)} lies outside the {B} episodes of up to {T} turns")
        if not turns.mask_BT[response.episode, response.turn]:
            raise ValueError(f"{_where(response)} answers a turn that was not played")
        if seen_BT[response.episode, response.turn]:
            raise ValueError(f"{_where(response)} is there twice")
        seen_BT[response.episode, response.turn] = True
    if missing := np.argwhere(turns.mask_BT & ~seen_BT).tolist():
        raise ValueError(f"{len(missing)} played turns have no response; the first is (episode, turn) {missing[0]}")
    return (
        np.array([response.episode for response in responses], dtype=np.intp),
        np.array([response.turn for response in responses], dtype=np.intp),
    )


def _kinds(responses: Sequence[ResponseTokens]) -> tuple[NDArray[np.int8], NDArray[np.intp]]:
    """Return the kinds of all tokens end to end, and the length of each response."""
    for response in responses:
        kinds = response.kinds
        if kinds.ndim != 1 or not np.issubdtype(kinds.dtype, np.integer):
            raise ValueError(
                f"{_where(response)}: kinds must be a row of integers, got {kinds.dtype} of shape {kinds.shape}"
            )
        if len(kinds) != response.length:
            raise ValueError(f"{_where(response)}: {len(kinds)} kinds for {response.length} sampled tokens")
        if response.length == 0:
            raise ValueError(f"{_where(response)} has no tokens")
        if kinds.min() < 0 or kinds.max() >= len(TokenKind):
            raise ValueError(
                f"{_where(response)}: kinds from {kinds.min()} to {kinds.max()}, known are 0 to {max(TokenKind)}"
            )
    flat = np.concatenate([response.kinds for response in responses]).astype(np.int8)
    return flat, np.array([response.length for response in responses], dtype=np.intp)


def _check_decisions(
    responses: Sequence[ResponseTokens],
    kind_of_token: NDArray[np.int8],
    row_of_token: NDArray[np.intp],
    divided_N: Bools,
    boundary_N: Bools,
) -> None:
    """Check that a valid response has tokens for each of its decisions, in order, and thinks before all of them."""
    N, K = len(responses), len(TokenKind)
    has_NK = np.bincount(row_of_token * K + kind_of_token, minlength=N * K).reshape(N, K) > 0
    needs = {
        TokenKind.SWITCH: divided_N,
        # A kept subgoal has no loss, so it may be empty where tags do not count as its tokens.
        TokenKind.SUBGOAL: divided_N & boundary_N,
        TokenKind.ACTION: divided_N,
    }
    for kind, needed_N in needs.items():
        if response := _first(responses, needed_N & ~has_NK[:, kind]):
            raise ValueError(f"{_where(response)} is valid but has no {kind.name.lower()} tokens")

    decides = kind_of_token != TokenKind.OTHER
    kinds = np.where(kind_of_token == TokenKind.THINKING, 0, kind_of_token)[decides]
    rows = row_of_token[decides]
    backwards = (np.diff(kinds) < 0) & (np.diff(rows) == 0)
    disordered_N = np.bincount(rows[1:][backwards], minlength=N) > 0
    if response := _first(responses, divided_N & disordered_N):
        raise ValueError(f"{_where(response)} is valid but its decisions are not in the order switch, subgoal, action")


def _values(name: str, values_BT: Floats, turns: Turns) -> Floats:
    if values_BT.shape != turns.mask_BT.shape:
        raise ValueError(f"credit.{name} has shape {values_BT.shape}, the turns have {turns.mask_BT.shape}")
    if wrong := np.argwhere(turns.mask_BT & ~np.isfinite(values_BT)).tolist():
        raise ValueError(f"credit.{name} is NaN or infinite at (episode, turn) {wrong[0]}")
    return values_BT


def _first(responses: Sequence[ResponseTokens], wrong_N: Bools) -> ResponseTokens | None:
    return responses[int(wrong_N.argmax())] if wrong_N.any() else None


def _where(response: ResponseTokens) -> str:
    return f"the response at episode {response.episode}, turn {response.turn}"
