"""Construction of the parts of a run from its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hiper.config import Config
from hiper.display.console import Display
from hiper.envs.base import TextEnv
from hiper.errors import UserError
from hiper.files import seal, user_path
from hiper.imitation.language import check_sayable, language, texts
from hiper.learner.learner import Learner
from hiper.models.build import load_base, load_policy, make_nano, use_threads
from hiper.models.lora import is_adapter
from hiper.plan_execute.parse import Form
from hiper.plan_execute.prompts import PromptBuilder
from hiper.plan_execute.render import Template
from hiper.plan_execute.tokenizer import find_model, load_tokenizer
from hiper.processes import ALONE, Processes
from hiper.rollout.agent import Agent
from hiper.rollout.environment import open_splits
from hiper.rollout.samplers import RemoteSampler, Workplace
from hiper.rollout.setup import check_room, check_words, make_agent, make_prompts
from hiper.runs.policies import PolicyFolder
from hiper.runs.trackers import find_trackers
from hiper.seeding import derive_seed


@dataclass(frozen=True)
class Parts:
    """The parts of a run."""

    config: Config
    """The settings."""
    env: TextEnv
    """The environment, with the training tasks as its panel."""
    held_out: dict[str, TextEnv]
    """The environments with held-out tasks, by split."""
    tokenizer: PreTrainedTokenizerBase
    """The tokenizer of the policy."""
    prompts: PromptBuilder
    """The builder of the policy's prompts."""
    critic_prompts: PromptBuilder | None
    """The builder of the critic's prompts. None: the critic reads those of the policy."""
    learner: Learner
    """The learner, which holds policy and critic."""
    agent: Agent
    """The agent at the training temperature. Its sampler has the weights that the learner published last."""

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return self.learner.processes

    def store(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a folder, which appears whole and sealed or not at all. Every process calls this.

        ``write`` is called in the first process, and in all processes of a sharded learner.
        """
        if not (self.processes.first or self.learner.sharded):
            return
        with (self.processes if self.learner.sharded else ALONE).shared_folder(folder) as partial:
            write(partial)
            if self.processes.first:
                seal(partial)

    def store_policy(self, folder: Path) -> None:
        """Store the policy in ``folder``; see :meth:`store`."""
        self.store(folder, self.save_policy)

    def save_policy(self, folder: Path) -> None:
        """Write the policy as an ordinary Hugging Face directory, with its settings, its template and checksums.

        See :meth:`store` for who calls this.
        """
        first = self.processes.first
        if first:
            folder.mkdir(exist_ok=True)
        self.learner.export(folder)
        if first:
            self.tokenizer.save_pretrained(folder)
            PolicyFolder(folder).write(self.config, self.prompts.template.to_yaml())
            seal(folder)

    def close(self) -> None:
        """Release sampler, learner and environments."""
        self.agent.sampler.close()
        self.learner.close()
        for env in (self.env, *self.held_out.values()):
            env.close()


def build(
    config: Config,
    policy_path: Path | None = None,
    display: Display | None = None,
    processes: Processes = ALONE,
    *,
    logs: Path | None = None,
    playing: bool = True,
) -> Parts:
    """Build all parts. The sampler gets the learner's weights as version 0, unless it is outside this process.

    Args:
        config: The settings.
        policy_path: The policy of a checkpoint to resume from. None: the policy that the settings name.
        display: The display of progress. None: standard output.
        processes: The processes that train together.
        logs: The folder of an engine's log. None: the sampler chooses one.
        playing: Whether the policy will play. Otherwise the sampler gets no weights.

    Raises:
        UserError: The data, a model or a setting cannot be used, or differ between processes.
    """
    display = display or Display()
    processes.alike("the hash of all settings", hashlib.sha256(config.to_yaml().encode()).hexdigest()[:12])
    find_trackers(config)  # a wrong name is told now, not after the warm start
    use_threads(config.training.threads)
    env, *others = open_splits(config, (config.env.train_split, *config.evaluation.splits), display)
    tasks = env.panel if config.env.train_tasks is None else env.panel.subset(config.env.train_tasks)
    held_out = dict(zip(config.evaluation.splits, others, strict=True))
    own = None if policy_path is None else PolicyFolder(policy_path).template
    template = Template.load_for(config.env.name, config.prompt.template if own is None else own)
    check_form(config, template)
    with display.bar("making the model" if policy_path is None and config.model.path is None else "loading the model"):
        policy, tokenizer, adapter = _policy(config, policy_path, env, template)
    env.panel = tasks  # set late, because a nano model must know the words of the whole split
    learner = Learner.of(
        policy,
        critic=config.advantages.critic,
        config=config.learner,
        model_config=config.model,
        device=config.training.device,
        pad_id=tokenizer.pad_token_id,
        temperature=config.rollout.temperature,
        processes=processes,
    )
    if adapter is not None:
        learner.load_adapter(adapter)
    if processes.count > 1:
        processes.alike("the hash of the policy's weights", learner.weights().sha256()[:12])
    check_room(config, learner.weights())
    check_words(learner.weights(), tokenizer)
    prompts = make_prompts(config, template, tokenizer)
    critic_prompts = None
    if config.prompt.plan_memory == "critic":
        critic_prompts = make_prompts(config, template, tokenizer, critic=True)
    agent = make_agent(config, prompts, tokenizer, Workplace(logs, display.bar, processes))
    # An engine is started when it is needed, after the warm start.
    if playing and not isinstance(agent.sampler, RemoteSampler):
        learner.publish(agent.sampler, 0)
    return Parts(config, env, held_out, tokenizer, prompts, critic_prompts, learner, agent)


def check_form(config: Config, template: Template) -> None:
    """Check that responses are free, and that the template asks for every decision that gets credit or reward.

    Raises:
        UserError: Plans get credit or reward, but the template asks for none. Or responses are chosen.
    """
    if config.sampler.choose != "anything":
        raise UserError(
            f"sampler.choose={config.sampler.choose} is for playing and evaluating: the learner would credit tokens "
            "under another distribution than the one they were drawn from; leave it out, and give it to `hiper eval`"
        )
    if template.form is Form.PLAN_EXECUTE:
        return
    name = template.data.name
    if config.prompt.plan_memory != "none":
        raise UserError(f"template '{name}' asks for no plans, so it can show none; set prompt.plan_memory to none")
    if config.advantages.critic == "decisions":
        raise UserError(
            f"advantages.type '{config.advantages.type}' credits switches and subgoals, and template '{name}' asks for "
            "actions alone; choose another type, such as turn-gae, or a template with plans"
        )
    if config.shaping.keep_penalty:
        raise UserError(f"template '{name}' asks for no plans, so no subgoal is kept; set shaping.keep_penalty to 0")


def _policy(
    config: Config, path: Path | None, env: TextEnv, template: Template
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Path | None]:
    """Return the model to train, its tokenizer, and with LoRA the adapter to continue with, if there is one."""
    source = path or config.model.path
    if path is None and source is not None:
        PolicyFolder(user_path(source)).check()
    if source is not None:
        folder = Path(find_model(source))
        lora = config.learner.lora
        adapter = folder if lora is not None and is_adapter(folder) else None
        quantized = lora is not None and lora.quantize == "4bit"
        if adapter:
            policy = load_base(folder, config.model, quantized=quantized)
        else:
            policy = load_policy(source, config.model, quantized=quantized)
        return policy, load_tokenizer(source), adapter
    turns = list(language(env, config.model.nano.vocabulary_tasks))
    wording = template.wording
    if config.prompt.plan_memory != "none":
        template = template.with_plans()
        wording = [*template.wording, *map(str, range(1, env.max_turns + 1))]
    words = (text for said in turns for text in texts(template, said))
    policy, tokenizer = make_nano(config.model, words, derive_seed(config.seed, "model"), wording)
    check_sayable(env, template, tokenizer, turns)
    return policy, tokenizer, None
