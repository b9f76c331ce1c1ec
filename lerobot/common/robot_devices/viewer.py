"""Everything that a control loop sees and sends, in the viewer of rerun."""

from __future__ import annotations

import logging
import socket

from lerobot.common.robot_devices.keyboard import has_desktop
from lerobot.common.utils.import_utils import require_package
from lerobot.common.utils.visualization_utils import init_rerun

CONNECT_S = 3.0
QUALITY = 75  # of JPEG, where pictures are compressed


class Viewer:
    """One recording in rerun: `sent_action_<i>`, `observation.state_<i>`, and each picture under its key.

    Shown by the viewer at ip:port, or by one that is opened here. `kind` is teleop or record.
    """

    def __init__(self, kind: str, ip: str | None = None, port: int | None = None, compress: bool = False):
        init_rerun(f"lerobot_control_loop_{kind}", ip, port)
        import rerun

        self._rerun, self._compress = rerun, compress

    def log(self, observation: dict, action: dict) -> None:
        """One tick: tensors of an observation, and the action that was sent."""
        rerun = self._rerun
        vectors = {"sent_action": action["action"], "observation.state": observation["observation.state"]}
        for name, vector in vectors.items():
            for index, value in enumerate(vector):
                rerun.log(f"{name}_{index}", rerun.Scalars(float(value)))
        for key, picture in observation.items():
            if "image" in key:
                image = rerun.Image(picture.numpy())
                rerun.log(key, image.compress(QUALITY) if self._compress else image)


def open_viewer(kind: str, cfg) -> Viewer | None:
    """The viewer that a control's configuration asks for; None, with a warning, where none can be opened.

    ImportError where rerun is not installed, ValueError where only half of a viewer elsewhere is named, ConnectionError
    where it does not answer.
    """
    if not cfg.display_data:
        return None
    if (cfg.display_ip is None) != (cfg.display_port is None):
        raise ValueError("A viewer elsewhere needs both --control.display_ip and --control.display_port (rerun: 9876).")
    require_package("rerun-sdk", "visualize", import_name="rerun")
    if cfg.display_ip is None and not has_desktop():
        logging.warning(
            "--control.display_data=true: there is no desktop here (DISPLAY is not set), nothing is shown. Start the "
            "program rerun where there is one, and name it: --control.display_ip=HOST --control.display_port=9876."
        )
        return None
    if cfg.display_ip is not None:
        _require_listener(cfg.display_ip, cfg.display_port)
    return Viewer(kind, cfg.display_ip, cfg.display_port, cfg.display_compressed_images)


def _require_listener(ip: str, port: int) -> None:
    try:
        socket.create_connection((ip, port), CONNECT_S).close()
    except OSError as e:
        raise ConnectionError(
            f"No viewer answers at --control.display_ip={ip}, --control.display_port={port} ({e}): start the program "
            "rerun there, and let its port through the firewall."
        ) from e
