"""A smaller plan that still breaks a promise: fewer faults, fewer calls, plainer numbers.

Knows what plans are made of; whether one fails it has to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from relay.chaos.plan import CallPlan, Fault, Plan

TRIES = 150  # a world takes half a second; a plan is mostly small after fifty


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, tries: int = TRIES) -> Plan:
    """The smallest plan found within so many tries; `plan` itself must fail."""
    left = tries
    seen = {plan}
    improved = True
    while improved:
        improved = False
        for smaller in _smaller(plan):
            if smaller in seen:
                continue
            if left == 0:
                return plan
            left -= 1
            seen.add(smaller)
            if fails(smaller):
                plan, improved = smaller, True
                break
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Big steps first."""
    faults = plan.faults
    half = len(faults) // 2
    if half:
        yield _with_faults(plan, faults[:half])
        yield _with_faults(plan, faults[half:])
    for position in range(len(plan.calls)):
        if len(plan.calls) > 1:
            yield _without_call(plan, position)
    for position in range(len(faults)):
        yield _with_faults(plan, faults[:position] + faults[position + 1 :])
    for position, call in enumerate(plan.calls):
        for plainer in _plainer_calls(call):
            yield msgspec.structs.replace(
                plan, calls=(*plan.calls[:position], plainer, *plan.calls[position + 1 :])
            )
    for position, fault in enumerate(faults):
        for plainer_fault in _plainer_faults(fault):
            yield _with_faults(plan, (*faults[:position], plainer_fault, *faults[position + 1 :]))


def _with_faults(plan: Plan, faults: tuple[Fault, ...]) -> Plan:
    return msgspec.structs.replace(plan, faults=faults)


def _without_call(plan: Plan, position: int) -> Plan:
    """The plan without this call and what strikes it; the calls behind it move up."""
    kept = (fault for fault in plan.faults if fault.target == "node" or fault.call != position)
    moved = (
        msgspec.structs.replace(fault, call=fault.call - 1) if fault.call > position else fault
        for fault in kept
    )
    calls = plan.calls[:position] + plan.calls[position + 1 :]
    return msgspec.structs.replace(plan, calls=calls, faults=tuple(moved))


def _plainer_calls(call: CallPlan) -> Iterator[CallPlan]:
    """Each thing as it is by default, and one turn less."""
    yield CallPlan(finish=call.finish, finish_at=call.finish_at)
    for name, default in msgspec.structs.asdict(CallPlan()).items():
        yield msgspec.structs.replace(call, **{name: default})
    for turn in range(len(call.turns)):
        yield msgspec.structs.replace(call, turns=call.turns[:turn] + call.turns[turn + 1 :])
    yield msgspec.structs.replace(call, finish_at=float(round(call.finish_at)))


def _plainer_faults(fault: Fault) -> Iterator[Fault]:
    """At once, half as late, at a full second; the same for how long it lasts."""
    for at in (0.0, fault.at / 2, float(round(fault.at))):
        if at < fault.at:
            yield msgspec.structs.replace(fault, at=at)
    for seconds in (0.0, float(round(fault.seconds))):
        if seconds < fault.seconds:
            yield msgspec.structs.replace(fault, seconds=seconds)
    if fault.step > 1:
        yield msgspec.structs.replace(fault, step=fault.step // 2)
