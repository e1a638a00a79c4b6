"""How long a stage may take: what the user said, or a generous multiple of what such stages took before."""

from __future__ import annotations

from harness.stages.base import RunContext, Stage
from harness.store import open_store

_TIMES_EXPECTED = 20
_LEAST_SECONDS = 3600.0


class TimeLimits:
    """The limits of a run, from the timings on its store when it starts."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._timings = open_store(context.store).timings() if context.stage_timeout is None else {}

    def seconds(self, stage: Stage) -> float | None:
        """Seconds that the stage may take; None where the user set none, or nothing is known of its like.

        What other stages of its kind took says too little: they may be a thousand times smaller.
        """
        if self._context.stage_timeout is not None:
            return self._context.stage_timeout or None
        expected = self._timings.get(stage.timing_name(self._context.device))
        return None if expected is None else max(_LEAST_SECONDS, _TIMES_EXPECTED * expected)
