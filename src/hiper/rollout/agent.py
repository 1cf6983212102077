"""A language model as planner and executor of many episodes at once."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from hiper.envs.base import Observation, Start, TextEnv
from hiper.errors import UserError, shortened
from hiper.plan_execute.choices import response_pattern
from hiper.plan_execute.parse import parse_response
from hiper.plan_execute.prompts import Prompt, PromptBuilder
from hiper.plan_execute.render import PromptContext
from hiper.plan_execute.spans import TokenReader, low_index, token_kinds
from hiper.plan_execute.tokenizer import encode_text, round_trip
from hiper.rollout.players import Accepts, Assignment, Move
from hiper.rollout.samplers.base import Request, Sample, Sampler, SamplingParams
from hiper.seeding import derive_seed
from hiper.validation import check_temperature


class Agent:
    """A language model that plays: it builds prompts, samples responses and parses them into moves.

    Args:
        sampler: The sampler of responses. Its owner loads weights into it and closes it.
        tokenizer: The tokenizer of the model.
        prompts: The builder of the prompts that the model reads.
        params: The temperature and length of responses.
        include_tags: Whether the tags of a block share the block's advantage.
        chooses: Whether responses are chosen among those with a valid form and an admissible action.
    """

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptBuilder,
        params: SamplingParams,
        include_tags: bool,
        *,
        chooses: bool = False,
    ) -> None:
        self.sampler = sampler
        self.prompts = prompts
        self.params = params
        self._reader = TokenReader(tokenizer)
        self._include_tags = include_tags
        self.chooses = chooses
        """Whether responses are chosen among those with a valid form and an admissible action."""
        self._tokenizer = tokenizer

    def at(self, temperature: float) -> Agent:
        """Return the same agent at another temperature.

        Raises:
            UserError: It cannot be sampled at that temperature.
        """
        other = object.__new__(Agent)
        other.__dict__.update(self.__dict__, params=replace(self.params, temperature=check_temperature(temperature)))
        return other

    def seat(self, env: TextEnv, assignment: Assignment) -> AgentPlayer:
        """Make the player of one episode."""
        return AgentPlayer(self, assignment.sampling_seed)

    def run(self) -> None:
        """Let the sampler work, if it needs the caller's thread."""
        self.sampler.run()

    def pattern(self, context: PromptContext, prompt: Prompt) -> str | None:
        """Return the pattern of the responses among which the policy chooses. None: any response.

        Raises:
            UserError: The environment does not list actions.
        """
        if not self.chooses:
            return None
        if not context.admissible:
            raise UserError(
                "sampler.choose=admissible needs an environment that lists the admissible actions, and this one lists "
                f"none at turn {context.turn + 1}: leave sampler.choose out"
            )
        template, thinking = self.prompts.template, self.prompts.thinking
        hidden = template.data.admissible.hide
        actions = [action for action in template.say_all(context) if action not in hidden]
        return response_pattern(actions, template.form, thinking, prompt.opens_thinking, self._write)

    def _write(self, text: str) -> str | None:
        """Return a text as the tokenizer writes it; None: it has no tokens for a part of it."""
        unknown = self._tokenizer.unk_token_id
        if unknown is not None and unknown in encode_text(self._tokenizer, text):
            return None
        return round_trip(self._tokenizer, text)

    def understand(self, context: PromptContext, accepts: Accepts, prompt: Prompt, sample: Sample) -> Move:
        """Parse a sampled response into a move. Every field of the move derives from the sampled ids.

        Args:
            context: The state before the turn.
            accepts: Whether the environment would understand an action.
            prompt: The prompt that was answered.
            sample: The response.
        """
        tokens = self._reader.read(sample.ids, ended=sample.finished)
        template = self.prompts.template
        parsed = parse_response(
            tokens.text,
            previous_subgoal=context.subgoal,
            accepts=accepts,
            understand=lambda said: template.understand(said, context),
            hit_limit=not sample.finished,
            form=template.form,
            thinking=self.prompts.thinking,
            opened=prompt.opens_thinking,
        )
        return Move(
            action=parsed.action,
            subgoal=parsed.subgoal,
            switch=parsed.decision is not None and parsed.decision.switch,
            boundary=parsed.boundary,
            text=tokens.text,
            invalid=parsed.invalid,
            copy_differs=parsed.copy_differs,
            prompt_ids=tuple(prompt.ids),
            prompt_cut=not prompt.complete,
            response_ids=sample.ids,
            logprobs=sample.logprobs,
            kinds=tuple(int(kind) for kind in token_kinds(tokens, parsed, self._include_tags)),
            low_index=low_index(tokens, parsed) if parsed.format_valid else None,
            version=sample.version,
            thinking=parsed.thinking,
        )


class AgentPlayer:
    """An agent as the player of one episode."""

    def __init__(self, agent: Agent, sampling_seed: int) -> None:
        self._agent, self._seed = agent, sampling_seed
        self._prompt = Prompt([])
        self._pattern: str | None = None

    def begin(self, start: Start) -> None:
        """Do nothing, because prompts hold everything that the model knows."""

    def ask(self, context: PromptContext) -> Future[Sample]:
        """Submit the turn's prompt to the sampler."""
        self._prompt = self._agent.prompts.build(context)
        seed = derive_seed(self._seed, context.turn)
        self._pattern = self._agent.pattern(context, self._prompt)
        return self._agent.sampler.submit(Request(self._prompt.ids, self._agent.params, seed, self._pattern))

    def decide(self, context: PromptContext, accepts: Accepts, answer: Sample) -> Move:
        """Parse the response into a move."""
        move = self._agent.understand(context, accepts, self._prompt, answer)
        # Bytes that are no text decode to other lengths, which is no harm: what counts is that the response is valid.
        strays = answer.finished and move.invalid is not None
        if self._pattern is not None and strays and not re.fullmatch(self._pattern, move.text):
            raise UserError(
                f"the sampler gave a response outside of sampler.choose=admissible ({shortened(move.text)}): "
                "leave sampler.choose out, or use another sampler"
            )
        return move

    def saw(self, action: str, observation: Observation) -> None:
        """Do nothing, because the next prompt shows it."""
