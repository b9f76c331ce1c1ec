"""What a check found, as data: the doctor, check_dataset, the robot's preflight and the server handshake show it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

SEVERITIES = ("info", "warning", "error")


@dataclass(frozen=True)
class Where:
    """The place of a finding: episode, frames [first, last], feature and file, as far as they apply."""

    episode: int | None = None
    frame: int | None = None  # first frame of the episode that is meant
    last_frame: int | None = None
    feature: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        parts = [] if self.episode is None else [f"episode {self.episode}"]
        if self.frame is not None:
            last = self.last_frame
            parts.append(f"frame {self.frame}" if last in (None, self.frame) else f"frames {self.frame}-{last}")
        return ", ".join(parts + [part for part in (self.feature, self.file) if part])


@dataclass(frozen=True)
class Finding:
    """One verdict.

    `code` names the kind of finding and never changes ("video.frame_count"); `severity` is one of SEVERITIES:
    error (it cannot be used as it is), warning (it will hurt), info (worth knowing). `evidence` holds the
    measured numbers as JSON values; `fix` the command that repairs it, empty where only a person can.
    """

    code: str
    severity: str
    message: str
    where: Where = Where()
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str = ""

    def __post_init__(self):
        if self.severity not in SEVERITIES:
            raise ValueError(f"Finding '{self.code}' has severity '{self.severity}'; expected one of {SEVERITIES}.")

    def __str__(self) -> str:
        place = f" ({self.where})" if str(self.where) else ""
        fix = f" Repair: {self.fix}" if self.fix else ""
        return f"{self.severity}: {self.code}{place}: {self.message}{fix}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; places that do not apply are left out."""
        data = asdict(self)
        return {**data, "where": {key: value for key, value in data["where"].items() if value is not None}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """The inverse of `to_dict`."""
        return cls(**{**data, "where": Where(**data.get("where", {}))})


def worst(findings: Iterable[Finding]) -> str | None:
    """The highest severity, None without findings."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default=None)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing or only infos; 1: warnings; 2: errors."""
    return max(0, SEVERITIES.index(worst(findings) or "info"))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; the order within one severity stays."""
    return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))


def log_findings(findings: Iterable[Finding]) -> None:
    """One log line per finding, at the level of its severity."""
    for finding in by_severity(findings):
        logging.log(getattr(logging, finding.severity.upper()), str(finding))
