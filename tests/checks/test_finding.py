"""Findings as data."""

import json

import pytest

from lerobot.common.checks.finding import Finding, Where, by_severity, exit_code, worst

STILL = Finding("video.frozen", "warning", "20 equal pictures.", Where(3, 10, 29, "observation.images.top"), {"n": 20})
BROKEN = Finding("video.broken", "error", "cannot be decoded.", Where(episode=1), fix="delete episode 1")


def test_a_finding_survives_json():
    assert Finding.from_dict(json.loads(json.dumps(STILL.to_dict()))) == STILL


def test_the_text_names_place_and_repair():
    assert str(STILL) == ("warning: video.frozen (episode 3, frames 10-29, observation.images.top): 20 equal pictures.")
    assert str(BROKEN).endswith("Repair: delete episode 1")


def test_the_worst_severity_decides_the_exit_code():
    assert [exit_code([]), exit_code([STILL]), exit_code([STILL, BROKEN])] == [0, 1, 2]
    assert worst([]) is None
    assert by_severity([STILL, BROKEN]) == [BROKEN, STILL]


def test_an_unknown_severity_is_refused():
    with pytest.raises(ValueError, match="fatal"):
        Finding("x", "fatal", "")
