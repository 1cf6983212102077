from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hiper.display.transcript import transcript
from hiper.episode import Episode

MakeEpisode = Callable[..., Episode]


def test_each_subgoal_stands_above_what_was_done_for_it(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > go north", "KEEP > look", "SWITCH bring it > go back")
    assert transcript(episode) == [
        "errand: run an errand.",
        "  subgoal: find it",
        "     1  go north  You see room 1.",
        "     2  look      You see room 2.",
        "  subgoal: bring it",
        "     3  go back   (won)",
    ]


def test_what_was_wrong_is_shown(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > go north", "KEEP > look", won=False)
    mute = replace(episode.turns[0], action="", subgoal="", invalid="cut_off")
    lines = transcript(replace(episode, turns=(mute, episode.turns[1])))
    assert lines[1:] == [
        "  subgoal: (none stated)",
        "     1  (nothing) [cut_off]  You see room 1.",
        "     2  look                 (turn_limit)",
    ]


def test_long_answers_are_cut(make_episode: MakeEpisode):
    episode = make_episode("SWITCH find it > look", "KEEP > look")
    wordy = replace(episode.turns[1], observation="word " * 100)
    lines = transcript(replace(episode, turns=(episode.turns[0], wordy)), width=60)
    assert lines[2].endswith("word ...")
    assert len(lines[2]) <= 60
