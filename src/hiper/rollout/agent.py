"""One language model as planner and executor: contexts in, turns out, for many episodes at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hiper.plan_execute.parse import Parsed, parse_response
from hiper.plan_execute.prompts import Prompt, PromptBuilder
from hiper.plan_execute.render import PromptContext
from hiper.plan_execute.spans import TokenReader, low_index, token_kinds
from hiper.rollout.samplers.transformers import Sample, Sampler, SamplingParams


@dataclass(frozen=True, slots=True)
class Reply:
    """A sampled response, understood. Everything in it derives from the sampled ids themselves."""

    prompt: Prompt
    sample: Sample
    text: str
    parsed: Parsed
    kinds: tuple[int, ...]
    low_index: int | None


class Agent:
    """A sampler, with what it takes to ask it and to understand it."""

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptBuilder,
        params: SamplingParams,
        include_tags: bool = True,
    ) -> None:
        self.sampler = sampler
        self.prompts = prompts
        self.params = params
        self.seconds = 0.0
        """Spent in the sampler, all calls together."""
        self._reader = TokenReader(tokenizer)
        self._include_tags = include_tags

    def reply(
        self, contexts: Sequence[PromptContext], accepts: Sequence[Callable[[str], bool]], seeds: Sequence[int]
    ) -> list[Reply]:
        """One reply per context, in order.

        Args:
            contexts: what is known before each turn.
            accepts: for each, whether the environment would understand an action.
            seeds: for each, of the sampling.
        """
        prompts = [self.prompts.build(context) for context in contexts]
        began = time.perf_counter()
        samples = self.sampler.sample([prompt.ids for prompt in prompts], self.params, seeds)
        self.seconds += time.perf_counter() - began
        return [self._understand(*parts) for parts in zip(contexts, accepts, prompts, samples, strict=True)]

    def _understand(
        self, context: PromptContext, accepts: Callable[[str], bool], prompt: Prompt, sample: Sample
    ) -> Reply:
        tokens = self._reader.read(sample.ids, ended=sample.finished)
        parsed = parse_response(
            tokens.text,
            previous_subgoal=context.subgoal,
            accepts=accepts,
            understand=lambda said: self.prompts.template.understand(said, context),
            hit_limit=not sample.finished,
            form=self.prompts.template.form,
        )
        kinds = tuple(int(kind) for kind in token_kinds(tokens, parsed, self._include_tags))
        low = low_index(tokens, parsed) if parsed.format_valid else None
        return Reply(prompt, sample, tokens.text, parsed, kinds, low)
