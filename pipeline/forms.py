"""Payloads that people bring are held to the form of their kind, before any gate looks at their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from calib.form import Leeway, misfits
from calib.payload import Payload, PayloadStore
from pipeline.conditions_words import Refused
from pipeline.world import World


@dataclass(frozen=True)
class Forms:
    """What is known of the form of each kind: the payload that the experiment starts from, else the one in force."""

    store: PayloadStore
    initial: Mapping[str, Payload]
    leeway: Mapping[str, Leeway]

    @classmethod
    def of(cls, world: World) -> Self:
        """Those of an experiment. It makes its initial conditions here: do it before a transaction, not in it."""
        leeway = {calibration.kind: calibration.leeway for calibration in world.experiment.calibrations()}
        return cls(world.store, world.experiment.initial_conditions(), leeway)

    def misfits(self, payload: Payload, held: str | None) -> tuple[str, ...]:
        """What is wrong with the form of a payload; `held` is the id of what is in force where it is to begin."""
        in_force = self.store.get(held) if held else None
        reference = self.initial.get(payload.kind, in_force)
        if reference is None:
            return ()
        leeway = self.leeway.get(payload.kind, Leeway())
        return misfits(payload, reference, leeway.knowing(in_force) if in_force else leeway)

    def hold(self, payload: Payload, held: str | None, source: object) -> None:
        """Raises Refused, naming the source and every mistake, when the form is wrong."""
        if wrong := self.misfits(payload, held):
            raise Refused(f"{source}: {misfit_words(payload.kind, wrong)}")

    def unknown(self, kind: str, held: str | None) -> tuple[str, ...]:
        """A word where nothing is known of the form of a kind, so that a payload is not held to any."""
        if held is not None or kind in self.initial:
            return ()
        return (f"nothing is known yet of the form of {kind}: names, shapes and units are not checked",)


def misfit_words(kind: str, wrong: tuple[str, ...]) -> str:
    """The mistakes of a payload in one sentence."""
    return (
        f"this is no payload of kind {kind}: {'; '.join(wrong)} (`tier0 conditions export {kind}` writes one to go by)"
    )
