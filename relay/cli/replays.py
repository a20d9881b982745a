"""A replayed call on the terminal.

Knows how to lay out what a replay came to; replays nothing.
"""

from __future__ import annotations

from itertools import groupby

from relay.actions import ForwardToAgent, PlayOnPhone
from relay.cli.terminal import print_json
from relay.replay import Replay, Step, describe


def show_replay(replay: Replay, *, as_json: bool) -> None:
    """Every action in its order; a run of frames is one line."""
    ending = replay.ending
    if as_json:
        steps = [
            {"at": round(step.at, 4), "cause": step.cause, "action": describe(step.action)}
            for step in replay.steps
        ]
        print_json({"ending": ending and ending.as_json(), "difference": replay.difference, "actions": steps})
        return
    for are_frames, run in groupby(replay.steps, key=_is_frame):
        steps_of_run = list(run)
        if are_frames:
            to_phone = sum(isinstance(step.action, PlayOnPhone) for step in steps_of_run)
            told = f"{len(steps_of_run) - to_phone} frames to the agent, {to_phone} to the phone"
            print(f"{steps_of_run[0].at:8.3f}s  {'':<28} … {told}")
            continue
        for step in steps_of_run:
            print(f"{step.at:8.3f}s  {step.cause:<28} {describe(step.action)}")
    print(f"ending: {ending.blame}/{ending.reason}" if ending else "the dialogue did not end this call")
    if replay.difference is not None:
        print(f"different from the recording: {replay.difference}")


def _is_frame(step: Step) -> bool:
    return isinstance(step.action, ForwardToAgent | PlayOnPhone)
