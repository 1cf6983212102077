"""DAgger: the policy plays, and imitates what the expert would have done there.

Demonstrations show the states to which the expert's play leads. A policy that errs comes to other states. It knows
nothing there, and may go round in circles. Here it plays itself. At each turn the expert says what it would do, and
this is imitated (Ross, Gordon and Bagnell, 2011, https://arxiv.org/abs/1011.0686). The expert's advice is never
played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from transformers import PreTrainedTokenizerBase

from hiper.envs.base import Decision, Observation, Start, TextEnv
from hiper.episode import Episode
from hiper.imitation.demonstrations import ExpertPlayer, Experts
from hiper.imitation.fine_tuning import imitation_row
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import PromptContext
from hiper.processes import ALONE, Processes
from hiper.rollout.collector import collect, contexts_of
from hiper.rollout.players import Accepts, Assignment, Move, Player, Players
from hiper.rows import Row
from hiper.seeding import derive_seed


def corrected_rows(
    env: TextEnv,
    task_ids: Sequence[str],
    players: Players,
    prompts: PromptBuilder,
    tokenizer: PreTrainedTokenizerBase,
    *,
    slots: int,
    seed: int,
    on_turn: Callable[[int], None] = lambda turns: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
    processes: Processes = ALONE,
) -> list[Row]:
    """Let the policy play each task once, and return one row for each prompt, with the expert's answer to it.

    A prompt that comes up again in an episode counts once. Otherwise an episode that goes round in circles would
    outweigh many others.

    Args:
        env: The environment. Its expert advises.
        task_ids: The tasks to play, each of them once.
        players: The policy that plays.
        prompts: The builder of the policy's prompts.
        tokenizer: The policy's tokenizer.
        slots: The number of episodes that run at once, in all processes together.
        seed: The seed of the episodes and of the sampling.
        on_turn: See :func:`~hiper.rollout.collector.collect`.
        on_episode: See :func:`~hiper.rollout.collector.collect`.
        processes: The processes that train together. Each plays its share of the tasks.

    Raises:
        UserError: The environment has no expert.
    """

    def rows_of_tasks(share: Sequence[str]) -> list[list[Row]]:
        advised = _Advised(players)
        assignments = [Assignment(task, derive_seed(seed, task), derive_seed(seed, task, "sampling")) for task in share]
        own_slots = -(-slots // processes.count)
        episodes, _ = collect(env, assignments, advised, slots=own_slots, on_turn=on_turn, on_episode=on_episode)
        return [rows_of(advised.advice_for(episode)) for episode in episodes]

    def rows_of(advice: list[tuple[PromptContext, Decision]]) -> list[Row]:
        rows = (imitation_row(context, decision, prompts, tokenizer) for context, decision in advice)
        return list({row.prompt_ids: row for row in rows}.values())

    return [row for rows in processes.share(task_ids, rows_of_tasks) for row in rows]


class _Advised:
    """Players beside whom an expert says what it would do."""

    def __init__(self, players: Players) -> None:
        self._players, self._experts = players, Experts()
        self._advice: dict[str, list[Decision]] = {}

    def seat(self, env: TextEnv, assignment: Assignment) -> _AdvisedPlayer:
        """Make the player of one episode, and its adviser."""
        advice = self._advice[assignment.task_id] = []
        return _AdvisedPlayer(self._players.seat(env, assignment), self._experts.seat(env, assignment), advice)

    def run(self) -> None:
        """Let the players' sampler work."""
        self._players.run()

    def advice_for(self, episode: Episode) -> list[tuple[PromptContext, Decision]]:
        """Return the state before each turn of an episode, and what the expert would have done."""
        return list(zip(contexts_of(episode), self._advice[episode.task_id], strict=True))


class _AdvisedPlayer:
    """A player and an expert at the same episode. The player's moves are played; the expert's are noted."""

    def __init__(self, player: Player, expert: ExpertPlayer, advice: list[Decision]) -> None:
        self._player, self._expert, self._advice = player, expert, advice

    def begin(self, start: Start) -> None:
        """Show the task to both."""
        self._player.begin(start)
        self._expert.begin(start)

    def ask(self, context: PromptContext) -> Future[Any]:
        """Ask the player alone, because the expert answers at once."""
        return self._player.ask(context)

    def decide(self, context: PromptContext, accepts: Accepts, answer: Any) -> Move:
        """Return the player's move, and note the expert's."""
        advised = self._expert.decide(context, accepts, None)
        self._advice.append(Decision(advised.switch, advised.subgoal or "", advised.action))
        return self._player.decide(context, accepts, answer)

    def saw(self, action: str, observation: Observation) -> None:
        """Tell both the outcome."""
        self._player.saw(action, observation)
        self._expert.saw(action, observation)
