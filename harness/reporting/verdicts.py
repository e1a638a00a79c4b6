"""What re-runs of a bundle's trials said, kept beside it: `FILE.verdicts.json`, for that very file alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.reporting.bundles import Bundle
from harness.store.files import read_mapping, write_json

SAME, NOISE = "same to the last digit", "within noise"
DIFFERENT, UNVERIFIABLE, INCONSISTENT = "different", "unverifiable", "inconsistent"
"""Another result; not checked for a reason that is said; wrong without any re-run."""
SOUND = (SAME, NOISE)


@dataclass(frozen=True)
class Verdicts:
    """Trial -> verdict, of the trials that were re-run or found inconsistent."""

    found: Mapping[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> frozenset[str]:
        """The trials whose re-run agreed."""
        return frozenset(trial for trial, verdict in self.found.items() if verdict in SOUND)

    @classmethod
    def beside(cls, bundle: Bundle) -> Verdicts:
        """The verdicts on a bundle; none where nobody verified it here, or it is another file since."""
        said = read_mapping(_place(bundle))
        found = said.get("trials")
        if said.get("bundle") != bundle.sha256 or not isinstance(found, dict):
            return cls()
        return cls({str(trial): str(verdict) for trial, verdict in found.items()})

    def keep(self, bundle: Bundle) -> None:
        """Write them beside the bundle, with earlier ones on other trials of it."""
        trials = {**Verdicts.beside(bundle).found, **self.found}
        write_json(_place(bundle), {"bundle": bundle.sha256, "trials": trials}, indent=1)


def _place(bundle: Bundle) -> Path:
    return bundle.path.with_name(f"{bundle.path.name}.verdicts.json")
