"""Chooses how MuJoCo draws without a screen; must run before mujoco is imported."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

from packaging import version

OLDEST_MUJOCO = "3.2"
EGL_DEVICE_EXT = 0x313F
EGL_EXTENSIONS = 0x3055
NO_GL_MESSAGE = (
    "No pictures can be drawn: MUJOCO_GL=disable was set, or no OpenGL library that draws without a screen was found "
    "(tried EGL and OSMesa). Unset it, or install one with `apt-get install libosmesa6` (or a GPU driver with EGL), or "
    "set MUJOCO_GL to one that works here{0}."
)
GLFW_MESSAGE = "MUJOCO_GL=glfw draws on a screen, and there is none: unset it, or set egl or osmesa."
LATE_MESSAGE = (
    "mujoco was imported before its OpenGL backend was chosen and wants a display. Import "
    "lerobot.common.envs.koch_sim.world first, or set MUJOCO_GL=osmesa (or egl) before starting Python."
)


class RenderingError(RuntimeError, ValueError):
    """Pictures cannot be drawn here; the message names the remedy."""


def select_gl() -> str:
    """Sets `MUJOCO_GL` (and one rendering thread for software GL) and returns the backend's name, in small letters.

    A value that the user has set wins. Otherwise EGL where it reaches a GPU, then OSMesa, which is the
    faster software renderer, then software EGL; with none of them rendering is disabled, so that the
    physics still works.
    """
    # llvmpipe splits each of our small frames over all cores and waits: slower, and it starves training.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if "MUJOCO_GL" in os.environ or "mujoco" in sys.modules or sys.platform != "linux":
        return _chosen()
    egl = egl_devices()
    if any(egl):
        backend = "egl"
    elif ctypes.util.find_library("OSMesa"):
        backend = "osmesa"
    elif egl:
        backend = "egl"
    else:
        backend = "disable"
    os.environ["MUJOCO_GL"] = backend
    return backend


def _chosen() -> str:
    return os.environ.get("MUJOCO_GL", "").lower().strip()


def egl_devices() -> list[bool]:
    """One entry per EGL device that can be opened: True for a GPU, False for software."""
    try:
        egl = ctypes.CDLL(ctypes.util.find_library("EGL") or "libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
    except (OSError, AttributeError):
        return []
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query_devices = _procedure(egl, b"eglQueryDevicesEXT", integer, integer, pointer, pointer)
    query_string = _procedure(egl, b"eglQueryDeviceStringEXT", ctypes.c_char_p, pointer, integer)
    get_display = _procedure(egl, b"eglGetPlatformDisplayEXT", pointer, integer, pointer, pointer)
    if not (query_devices and query_string and get_display):
        return []
    devices, count = (pointer * 16)(), integer()
    if not query_devices(16, devices, ctypes.byref(count)):
        return []
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    egl.eglTerminate.argtypes = [pointer]
    found = []
    for device in devices[: count.value]:
        display = get_display(EGL_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            found.append(b"EGL_MESA_device_software" not in (query_string(device, EGL_EXTENSIONS) or b""))
            egl.eglTerminate(display)
    return found


def _procedure(egl, name: bytes, result, *arguments):
    address = egl.eglGetProcAddress(name)
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def check_gl(mujoco) -> None:
    """Raises RenderingError, with the remedy, where opening a renderer would fail or crash."""
    if not hasattr(mujoco, "GLContext"):
        raise RenderingError(NO_GL_MESSAGE.format("; obs_type='state' needs none"))
    needs_display = sys.platform == "linux" and "glfw" in mujoco.GLContext.__module__
    if needs_display and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RenderingError(GLFW_MESSAGE if _chosen() == "glfw" else LATE_MESSAGE)


def import_mujoco():
    """Imports mujoco after `select_gl`.

    Raises ImportError naming the extra when it is not installed or too old, and RenderingError when `MUJOCO_GL` names
    a library that is not there.
    """
    backend = select_gl()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise ImportError(f'The simulated arm needs {error.name}: pip install -e ".[sim]"') from error
    except Exception as error:  # mujoco loads the library while it is imported; each fails in its own way
        raise RenderingError(
            f"mujoco cannot draw with MUJOCO_GL={backend} ({error}). Expected egl, osmesa, glfw (with a screen) "
            "or disable; where it is not set, what works here is chosen."
        ) from error
    if version.parse(mujoco.__version__) < version.parse(OLDEST_MUJOCO):
        raise ImportError(
            f"The simulated arm needs mujoco {OLDEST_MUJOCO} or newer, found {mujoco.__version__} (gym-xarm wants an "
            'old one: give it a Python environment of its own). Fix: pip install -e ".[sim]"'
        )
    return mujoco


def main() -> None:
    """Draw a picture; exit code 1 and the reason when that is impossible here."""
    mujoco = import_mujoco()
    try:
        check_gl(mujoco)
        renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>"), 8, 8)
        renderer.render()
        renderer.close()
    except Exception as error:  # drivers fail in many ways; all mean the same here
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"Rendering works: MUJOCO_GL={os.environ.get('MUJOCO_GL', 'default')}")


if __name__ == "__main__":
    main()
