"""A small kitchen written by hand, with the oddities of official rooms: things the tests know the answers to."""

from __future__ import annotations

import json
from typing import Any

from hiper.envs.alfworld import Engine, parse_game
from hiper.envs.alfworld.generate import generate_game

# Cabinet_bar_1 and the sink share a place; the apple is in the bowl on the counter, lettuce is in two receptacles.
RECEPTACLES = {
    "Cabinet_bar_1": ("CabinetType", "loc_bar_2"),
    "Cabinet_bar_2": ("CabinetType", "loc_bar_3"),
    "CounterTop_bar_1": ("CounterTopType", "loc_bar_4"),
    "Fridge_bar_1": ("FridgeType", "loc_bar_5"),
    "Microwave_bar_1": ("MicrowaveType", "loc_bar_6"),
    "Sink_bar_1_bar_SinkBasin": ("SinkBasinType", "loc_bar_2"),
    "SideTable_bar_1": ("SideTableType", "loc_bar_4"),
}
OPENABLE = ("Cabinet_bar_1", "Cabinet_bar_2", "Fridge_bar_1", "Microwave_bar_1")
# object: type, location, receptacles, properties
OBJECTS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "Apple_bar_1": (
        "AppleType",
        "loc_bar_4",
        ("CounterTop_bar_1",),
        "pickupable sliceable heatable coolable cleanable",
    ),
    "Apple_bar_2": ("AppleType", "loc_bar_5", ("Fridge_bar_1",), "pickupable sliceable heatable coolable cleanable"),
    "Bowl_bar_1": ("BowlType", "loc_bar_4", ("CounterTop_bar_1",), "pickupable isReceptacleObject cleanable coolable"),
    "ButterKnife_bar_1": ("ButterKnifeType", "loc_bar_3", ("Cabinet_bar_2",), "pickupable cleanable"),
    "DeskLamp_bar_1": ("DeskLampType", "loc_bar_4", ("SideTable_bar_1",), "toggleable"),
    "Lettuce_bar_1": (
        "LettuceType",
        "loc_bar_4",
        ("CounterTop_bar_1", "SideTable_bar_1"),
        "pickupable sliceable heatable coolable cleanable",
    ),
    "Sink_bar_1": ("SinkType", "loc_bar_2", (), ""),
}
CONTAINS = [
    (receptacle, thing)
    for receptacle in ("CabinetType", "CounterTopType", "FridgeType", "MicrowaveType", "SinkBasinType", "SideTableType")
    for thing in ("AppleType", "BowlType", "ButterKnifeType", "LettuceType")
    if (receptacle, thing) != ("MicrowaveType", "ButterKnifeType")
]
PUT_APPLE_IN_CABINET = """(exists (?r - receptacle) (exists (?o - object)
    (and (inReceptacle ?o ?r) (objectType ?o AppleType) (receptacleType ?r CabinetType))))"""
COOL_LETTUCE_ON_SIDETABLE = """(exists (?r - receptacle) (exists (?o - object)
    (and (coolable ?o) (objectType ?o LettuceType) (receptacleType ?r SideTableType)
         (isCool ?o) (inReceptacle ?o ?r))))"""
TWO_APPLES_IN_FRIDGE = """(exists (?r - receptacle) (exists (?o1 - object)
    (and (objectType ?o1 AppleType) (receptacleType ?r FridgeType) (inReceptacle ?o1 ?r)
         (exists (?o2 - object) (and (not (= ?o1 ?o2)) (objectType ?o2 AppleType)
             (receptacleType ?r FridgeType) (inReceptacle ?o2 ?r))))))"""
BOWL_IN_LIGHT = """
    (exists (?ot - object ?r - receptacle ?a - agent ?l - location)
        (and (objectType ?ot DeskLampType) (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l)
             (atLocation ?a ?l) (inReceptacle ?ot ?r)))
    (exists (?o - object ?a - agent) (and (objectType ?o BowlType) (holds ?a ?o)))"""

ODD_FACTS = """(opened Cabinet_bar_1) (isHot Apple_bar_1) (isCool Apple_bar_1) (isClean Apple_bar_1)
    (isToggled DeskLamp_bar_1) (isSliced Lettuce_bar_1) (pickupable DeskLamp_bar_1) (isOn DeskLamp_bar_1)
    (canContain CabinetType DeskLampType) (canContain CounterTopType DeskLampType)
    (inReceptacle ButterKnife_bar_1 CounterTop_bar_1) (objectAtLocation Bowl_bar_1 loc_bar_2)
    (receptacleType CounterTop_bar_1 SinkBasinType) (inReceptacle DeskLamp_bar_1 CounterTop_bar_1)
    (toggleable Bowl_bar_1) (objectType Apple_bar_1 LettuceType) (checked CounterTop_bar_1)"""
"""What no official game holds, but a game file may."""


def problem(goal: str = PUT_APPLE_IN_CABINET, start: str = "loc_bar_1", more: str = "") -> str:
    """The PDDL problem of the kitchen."""
    facts = [f"(atLocation agent1 {start})", "(inReceptacleObject Apple_bar_1 Bowl_bar_1)"]
    for name, (kind, at) in RECEPTACLES.items():
        facts += [f"(receptacleType {name} {kind})", f"(receptacleAtLocation {name} {at})"]
    facts += [f"(openable {name})" for name in OPENABLE]
    facts += [f"(canContain {receptacle} {thing})" for receptacle, thing in CONTAINS]
    for name, (kind, at, homes, properties) in OBJECTS.items():
        facts += [f"(objectType {name} {kind})", f"(objectAtLocation {name} {at})"]
        facts += [f"(inReceptacle {name} {home})" for home in homes]
        facts += [f"({each} {name})" for each in properties.split()]
    kinds = {kind: "rtype" for kind, _ in RECEPTACLES.values()} | {kind: "otype" for kind, *_ in OBJECTS.values()}
    sorts = {"agent1": "agent"} | kinds | dict.fromkeys(RECEPTACLES, "receptacle") | dict.fromkeys(OBJECTS, "object")
    sorts |= {f"loc_bar_{number}": "location" for number in range(1, 7)}
    declared = "\n".join(f"{name} - {sort}" for name, sort in sorts.items())
    initial = "\n".join([*facts, more])
    return f"(define (problem kitchen) (:domain alfred) (:objects {declared}) (:init {initial}) (:goal (and {goal})))"


def game_data(goal: str = PUT_APPLE_IN_CABINET, start: str = "loc_bar_1", more: str = "") -> dict[str, Any]:
    """The content of the kitchen's game file."""
    language: dict[str, Any] = json.loads(generate_game("train", 0, "tiny").text)
    return language | {"pddl_problem": problem(goal, start, more), "walkthrough": [], "solvable": True}


def kitchen(goal: str = PUT_APPLE_IN_CABINET, start: str = "loc_bar_1", more: str = "") -> Engine:
    """The kitchen, ready to play."""
    return Engine(parse_game(json.dumps(game_data(goal, start, more)), "kitchen"))
