"""What is done where a machine answers, as an agent's profile says; and the texts for it, filled in.

Knows no trio, no clock, no socket, no log and not how a machine is told from a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from relay.carrier import MachineDetection

Policy = Literal["hang-up", "leave-message", "continue"]


class Voicemail(BaseModel):
    """`machine_detection` is what the carrier is asked for where the request for a call does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy = "hang-up"
    message: str = ""
    machine_detection: MachineDetection = "off"

    @model_validator(mode="after")
    def _has_what_it_says(self) -> Self:
        if (self.policy == "leave-message") != bool(self.message.strip()):
            raise ValueError(
                'policy = "leave-message" needs a message; it is spoken behind the disclosure'
                if not self.message.strip()
                else 'a message is left with policy = "leave-message" alone'
            )
        return self


@dataclass(frozen=True, slots=True)
class FixedTexts:
    """What is spoken word for word where no person is known to listen."""

    message: str = ""  # begins with the disclosure: whoever hears it hears who calls
    answer: str = ""  # to a screening: who calls, that it is a machine, and why
    is_disclosure_apart: bool = False  # the carrier spoke it: an opening of the agent's has it not
