"""Settings of the dataset that newer LeRobot releases have."""

import dataclasses

import pytest

from lerobot.configs.default import DatasetConfig


def test_newer_settings_are_taken_where_they_ask_for_nothing():
    plain = DatasetConfig(
        root="somewhere", streaming=False, return_uint8=False, depth_output_unit="mm", repo_type="dataset"
    )
    assert plain == DatasetConfig(root="somewhere") == dataclasses.replace(plain)
    assert "streaming" not in dataclasses.asdict(plain)
    with pytest.raises(ValueError, match="StreamingLeRobotDataset"):
        DatasetConfig(root="somewhere", streaming=True)
    with pytest.raises(ValueError, match="depth_output_unit='m'"):
        DatasetConfig(root="somewhere", depth_output_unit="m")
