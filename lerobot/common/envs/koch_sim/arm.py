"""The Koch arm as a MuJoCo model built from boxes, in the joint convention of legacy Koch datasets.

Joint coordinates equal the calibrated angles: zero is the arm stretched out forward, horizontally. Base
frame on the table: x forward, y left, z up. Joint offsets and link masses are those of the public
`low_cost_robot_arm` model (MuJoCo Menagerie, Koch v1.1, Apache-2.0), re-expressed in this frame; shapes,
servos and contact parameters are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
MOTOR_NAMES = tuple(f"main_{name}" for name in JOINT_NAMES)
JOINT_LOW = (-110.0, -15.0, -10.0, -115.0, -180.0, -2.0)  # degrees
JOINT_HIGH = (110.0, 145.0, 185.0, 115.0, 180.0, 92.0)  # degrees
REST_POSE = (0.0, 134.0, 180.0, -19.0, 0.0, 35.0)  # degrees

PRINTED = "0.92 0.92 0.90 1"
MOTOR = "0.07 0.07 0.08 1"
PAD = "0.20 0.20 0.22 1"


@dataclass(frozen=True)
class Servo:
    """Position servo of one joint: gains in N m/rad and N m s/rad, torque limit in N m."""

    kp: float
    kv: float
    torque: float


SERVOS = (
    Servo(25.0, 0.25, 1.5),
    Servo(25.0, 0.25, 1.5),
    Servo(25.0, 0.25, 1.0),
    Servo(10.0, 0.10, 0.5),
    Servo(8.0, 0.10, 0.5),
    Servo(2.0, 0.05, 0.3),
)


@dataclass(frozen=True)
class Box:
    """A box fixed to a link: half sizes and centre in metres, turned by `yaw` degrees about z."""

    half: tuple[float, float, float]
    centre: tuple[float, float, float]
    colour: str = PRINTED
    yaw: float = 0.0
    pad: str = ""


@dataclass(frozen=True)
class Link:
    """A body, its offset from its parent, the axis of the joint that moves it, its mass and its boxes."""

    name: str
    offset: tuple[float, float, float]
    axis: tuple[int, int, int] | None
    mass: float
    boxes: tuple[Box, ...]


LINKS = (
    Link("base", (0, 0, 0), None, 0.20, (Box((0.04, 0.03, 0.018), (-0.02, 0, 0.018)),)),
    Link(
        "shoulder",
        (-0.012, 0, 0.0409),
        (0, 0, -1),
        0.05014,
        (Box((0.017, 0.025, 0.015), (0, 0, 0.012), MOTOR),),
    ),
    Link(
        "upper_arm",
        (0, 0.0209, 0.0154),
        (0, -1, 0),
        0.050177,
        (Box((0.055, 0.015, 0.012), (0.0575, -0.021, -0.004)),),
    ),
    Link(
        "forearm",
        (0.1083, -0.0065, -0.0148),
        (0, 1, 0),
        0.06379,
        (Box((0.045, 0.013, 0.012), (0.05, -0.0145, 0.003)),),
    ),
    Link(
        "wrist",
        (0.10048, -0.00005, 0.0027),
        (0, 1, 0),
        0.019805,
        (Box((0.020, 0.012, 0.011), (0.0205, -0.013, 0), MOTOR),),
    ),
    Link(
        "gripper",
        (0.045, -0.0131, 0),
        (1, 0, 0),
        0.029277,
        (
            Box((0.013, 0.011, 0.016), (0.011, -0.001, 0), MOTOR),
            Box((0.024, 0.003, 0.010), (0.045, -0.0135, 0.0005)),
            Box((0.010, 0.0015, 0.009), (0.061, -0.0095, 0.0005), PAD, pad="static_pad"),
        ),
    ),
    Link(
        "jaw",
        (0.01315, 0.0075, 0.0005),
        (0, 0, 1),
        0.012831,
        (
            Box((0.026, 0.003, 0.010), (0.026, 0, 0), yaw=-10),
            Box((0.010, 0.0015, 0.009), (0.0475, -0.0125, 0), PAD, yaw=-22, pad="moving_pad"),
        ),
    ),
)
TCP_OFFSET = (0.061, 0.0, 0.0005)  # pinch point in the gripper's frame
PAD_CONTACT = 'condim="4" friction="1.5 0.02 0.0005" solref="0.004 1" solimp="0.95 0.99 0.001" priority="1"'


def arm_xml(gripper_extras: str = "") -> str:
    """MJCF `<body>` element of the whole arm; `gripper_extras` is placed inside the gripper's body."""
    inner = ""
    for link in reversed(LINKS):
        extras = ""
        if link.name == "gripper":
            extras = f'<site name="tcp" pos="{numbers(TCP_OFFSET)}" size="0.002" rgba="0 0 0 0"/>{gripper_extras}'
        joint = _joint_xml(link)
        boxes = "".join(_box_xml(box, link) for box in link.boxes)
        inner = f'<body name="{link.name}" pos="{numbers(link.offset)}">{joint}{boxes}{extras}{inner}</body>'
    return inner


def actuators_xml() -> str:
    """MJCF `<actuator>` element: one position servo per joint, in the order of `JOINT_NAMES`."""
    rows = [
        f'<position name="{name}" joint="{name}" kp="{servo.kp}" kv="{servo.kv}" '
        f'forcerange="-{servo.torque} {servo.torque}"/>'
        for name, servo in zip(JOINT_NAMES, SERVOS, strict=True)
    ]
    return f"<actuator>{''.join(rows)}</actuator>"


def contact_xml() -> str:
    """MJCF `<contact>` element: pairs that never collide, neighbours and those that touch at rest."""
    names = [link.name for link in LINKS]
    folded = [("base", "upper_arm"), ("shoulder", "wrist"), ("upper_arm", "wrist")]
    pairs = [*zip(names, names[1:], strict=False), *folded]
    rows = [f'<exclude body1="{first}" body2="{second}"/>' for first, second in pairs]
    return f"<contact>{''.join(rows)}</contact>"


def numbers(values) -> str:
    """Numbers as an MJCF attribute value."""
    return " ".join(f"{value:.9g}" for value in values)


def _joint_xml(link: Link) -> str:
    if link.axis is None:
        return ""
    index = [moved.name for moved in LINKS if moved.axis].index(link.name)
    limits = f"{JOINT_LOW[index]} {JOINT_HIGH[index]}"
    return (
        f'<joint name="{JOINT_NAMES[index]}" axis="{numbers(link.axis)}" range="{limits}" '
        'damping="0.05" armature="0.005" frictionloss="0.02"/>'
    )


def _box_xml(box: Box, link: Link) -> str:
    solid = [other for other in link.boxes if not other.pad]
    share = _volume(box) / sum(_volume(other) for other in solid)
    physics = f'name="{box.pad}" mass="0" {PAD_CONTACT}' if box.pad else f'mass="{link.mass * share:.9g}"'
    return (
        f'<geom type="box" size="{numbers(box.half)}" pos="{numbers(box.centre)}" '
        f'euler="0 0 {box.yaw}" rgba="{box.colour}" {physics}/>'
    )


def _volume(box: Box) -> float:
    return box.half[0] * box.half[1] * box.half[2]
