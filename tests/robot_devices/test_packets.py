"""Protocol 2.0 on the wire, against packets of the vendor's documentation."""

from __future__ import annotations

import pytest

from lerobot.common.robot_devices.motors.control_table import CONTROL_TABLE
from lerobot.common.robot_devices.simulation.faults import inject
from lerobot.common.robot_devices.simulation.packets import (
    PING,
    READ,
    REBOOT,
    SYNC_READ,
    WRITE,
    Packet,
    PacketReader,
    status,
)
from lerobot.common.robot_devices.simulation.pty_server import ServoBus
from lerobot.common.robot_devices.simulation.servo import CLEAR_TURNS, Servo

VECTORS = {
    "FF FF FD 00 01 03 00 01 19 4E": Packet(1, 0x01),
    "FF FF FD 00 01 07 00 55 00 06 04 26 65 5D": Packet(1, 0x55, b"\x00\x06\x04\x26"),
    "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15": Packet(1, 0x02, b"\x84\x00\x04\x00"),
    "FF FF FD 00 01 04 00 55 00 A1 0C": Packet(1, 0x55, b"\x00"),
    "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89": Packet(1, 0x03, b"\x74\x00\x00\x02\x00\x00"),
    "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA": Packet(0xFE, 0x82, b"\x84\x00\x04\x00\x01\x02"),
    "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87": Packet(
        0xFE, 0x83, bytes.fromhex("74000400 01 96000000 02 AA000000")
    ),
    "FF FF FD 00 01 03 00 08 2F 4E": Packet(1, 0x08),
}


@pytest.mark.parametrize("wire", VECTORS)
def test_documented_packets_are_written_and_read(wire):
    assert VECTORS[wire].encode() == bytes.fromhex(wire)
    assert PacketReader().feed(bytes.fromhex(wire)) == [VECTORS[wire]]


def test_packets_are_found_in_pieces_in_noise_and_after_damage():
    good = Packet(3, 0x02, b"\x84\x00\x04\x00").encode()
    damaged = bytearray(good)
    damaged[9] ^= 0x10
    stream = b"\x00\xff" + bytes(damaged) + good + b"\xff\xff" + good
    reader, found = PacketReader(), []
    for byte in stream:
        found += reader.feed(bytes([byte]))
    assert len(found) == 2 and reader.damaged == 1


def test_a_header_inside_the_parameters_is_stuffed():
    packet = Packet(1, 0x03, b"\x74\x00\xff\xff\xfd\x00")
    assert b"\xff\xff\xfd\xfd" in packet.encode()
    assert PacketReader().feed(packet.encode()) == [packet]
    assert PacketReader().feed(status(1, 0, b"\xff\xff\xfd"))[0].parameters == b"\x00\xff\xff\xfd"


def test_eeprom_is_locked_while_torque_is_on():
    servo = Servo(1, "xl330-m288")
    servo.write(64, b"\x01")
    assert servo.write(11, b"\x04") == 7
    servo.write(64, b"\x00")
    assert servo.write(11, b"\x04") == 0 and servo.get("Operating_Mode") == 4


def test_a_change_of_mode_resets_gains_and_forgets_turns():
    servo = Servo(1, "xl430-w250", shaft=4100)
    servo.write(84, (1500).to_bytes(2, "little"))
    servo.write(11, b"\x04")
    assert servo.get("Position_P_Gain") == 640 and servo.get("Present_Position") == 4


def test_registers_that_a_model_lacks_are_refused():
    assert Servo(1, "xl430-w250").write(102, b"\x00\x01") == 7
    assert Servo(1, "xl330-m288").write(102, b"\x00\x01") == 0


def test_a_profile_faster_than_the_limit_is_refused():
    assert Servo(1, "xl430-w250").write(112, (300).to_bytes(4, "little")) == 6
    assert Servo(1, "xl330-m288").write(112, (300).to_bytes(4, "little")) == 0


def test_a_hardware_error_switches_off_until_reboot():
    servo = Servo(1, "xl330-m288")
    servo.write(64, b"\x01")
    servo.trip(5)
    assert not servo.torque and servo.write(64, b"\x01") == 0x80 | 1
    servo.reboot()
    assert servo.write(64, b"\x01") == 0


def test_the_watchdog_stops_the_motor_until_it_is_cleared():
    servo = Servo(1, "xl330-m288")
    servo.write(11, b"\x04")
    servo.write(64, b"\x01")
    servo.write(98, b"\x05")
    servo.tick(0.2)
    goal = (3000).to_bytes(4, "little")
    assert servo.get("Bus_Watchdog") == 0xFF and servo.write(116, goal) == 4
    servo.write(98, b"\x00")
    assert servo.write(116, goal) == 0


def test_a_stopped_servo_refuses_everything_but_being_woken():
    servo = Servo(1, "xl330-m288")
    servo.write(11, b"\x04")
    assert servo.write(98, b"\x80") == 4, "1 to 127 units, or 0"
    assert servo.write(98, b"\xff") == 4, "-1 is what it reads, not what it takes"
    servo.write(112, (100).to_bytes(4, "little"))
    servo.write(64, b"\x01")
    servo.write(98, b"\x7f")
    servo.tick(2.5)
    assert not servo.stopped
    servo.tick(0.1)
    assert servo.stopped and servo.read(98, 1) == (0, b"\xff")
    for address, data in ((100, b"\x01\x00"), (102, b"\x01\x00"), (104, bytes(4)), (116, bytes(4)), (98, b"\x05")):
        assert servo.write(address, data) == 4
    assert servo.torque and servo.write(98, b"\x00") == 0 and not servo.stopped


def test_a_change_of_mode_puts_gains_profile_and_limits_back_and_the_same_mode_does_not():
    servo = Servo(1, "xl330-m288")
    factory = {name: servo.get(name) for name in ("Velocity_I_Gain", "Velocity_P_Gain", "Position_I_Gain")}
    changed = (*factory, "Feedforward_1st_Gain", "Feedforward_2nd_Gain", "Profile_Velocity", "Profile_Acceleration")
    for name in (*changed, "Goal_PWM", "Goal_Current"):
        servo.set(name, 7)
    servo.write(11, b"\x03")
    assert servo.get("Goal_Current") == 7, "mode 3 it was in already"
    servo.write(11, b"\x05")
    assert [servo.get(name) for name in changed] == [*factory.values(), 0, 0, 0, 0]
    assert (servo.get("Goal_PWM"), servo.get("Goal_Current")) == (885, 1750)


@pytest.mark.parametrize(
    "register, value, error",
    [(7, 253, 4), (8, 7, 4), (9, 255, 4), (31, 101, 4), (64, 2, 4), (68, 3, 4), (84, 16_384, 4), (36, 886, 4)]
    + [(20, 1_044_480, 4), (48, 4096, 4), (100, 886, 6), (102, 1751, 6), (112, 446, 6), (108, 32_768, 4)],
)
def test_a_number_that_a_register_does_not_take_is_refused(register, value, error):
    servo = Servo(1, "xl330-m288")
    size = dict(CONTROL_TABLE.values())[register]
    before = bytes(servo.memory)
    assert servo.write(register, value.to_bytes(size, "little")) == error and servo.memory == before


@pytest.mark.parametrize("level, answered", [(0, {PING}), (1, {PING, READ, SYNC_READ}), (2, None)])
def test_the_return_level_decides_what_is_answered(level, answered):
    servo = Servo(1, "xl330-m288")
    bus = ServoBus([servo])
    servo.set("Status_Return_Level", level)
    packets = [Packet(1, PING), Packet(1, READ, b"\x84\x00\x04\x00"), Packet(1, WRITE, b"\x41\x00\x01")]
    packets += [Packet(0xFE, SYNC_READ, b"\x84\x00\x04\x00\x01"), Packet(1, 0x05), Packet(1, REBOOT)]
    heard = {packet.instruction for packet in packets if bus.receive(packet.encode())}
    assert heard == (answered or {packet.instruction for packet in packets})
    assert servo.get("Status_Return_Level") == 2, "the reboot was obeyed, and it is a register of the RAM"


def test_turns_are_lost_with_the_power_and_by_the_clear_instruction_and_mode_4_as_one_likes():
    servo = Servo(1, "xl430-w250", mode_4_forgets_turns=False)
    servo.slip(2)
    servo.write(11, b"\x04")
    assert servo.get("Present_Position") == 2048 + 2 * 4096
    assert servo.clear_turns(b"\x01") == 1 and servo.clear_turns(CLEAR_TURNS) == 0
    assert servo.get("Present_Position") == 2048
    servo.slip(-1)
    servo.reboot()
    assert (servo.get("Operating_Mode"), servo.get("Present_Position")) == (4, 2048)


def test_a_load_held_too_long_or_too_hot_ends_in_a_shutdown():
    servo = Servo(1, "xl330-m288")
    servo.write(64, b"\x01")
    servo.load = 0.9
    servo.tick(1.9)
    servo.load = 0.5
    servo.tick(0.1)
    servo.load = -0.9
    servo.tick(1.9)
    assert servo.torque and servo.get("Present_Current") < -1000, "no two seconds at a stretch"
    servo.tick(0.2)
    assert not servo.torque and servo.get("Hardware_Error_Status") == 1 << 5
    servo.tick(0.1)
    assert servo.get("Present_Current") == 0
    warm = Servo(2, "xl430-w250")
    warm.write(64, b"\x01")
    warm.celsius, warm.load = 72.5, 0.7
    warm.tick(0.1)
    assert not warm.torque and warm.get("Hardware_Error_Status") == 1 << 2 and warm.get("Present_Temperature") == 72


def test_a_reversed_servo_counts_backwards_and_keeps_the_sign_of_its_offset():
    servo = Servo(1, "xl330-m077", shaft=100.0)
    servo.set("Operating_Mode", 4)
    servo.set("Homing_Offset", 10)
    servo.set("Drive_Mode", 1)
    servo.sense()
    assert servo.get("Present_Position") == -90
    servo.write(64, b"\x01")
    servo.write(116, (-190).to_bytes(4, "little", signed=True))
    servo.tick(1.0)
    assert servo.shaft == 200.0 and servo.get("Present_Position") == -190
    servo.reboot()
    assert servo.get("Present_Position") == (-200) % 4096 + 10


def test_a_blocked_servo_stays_and_overloads_and_a_noisy_one_trembles():
    servo = Servo(1, "xl330-m288", shaft=1000.0)
    inject(servo, "stuck")
    servo.write(64, b"\x01")
    servo.write(116, (2000).to_bytes(4, "little"))
    for _ in range(30):
        servo.tick(0.1)
    assert servo.shaft == 1000.0 and servo.get("Hardware_Error_Status") == 1 << 5 and not servo.torque
    inject(servo, "noise", 3)
    read = set()
    for _ in range(100):
        servo.sense()
        read.add(servo.get("Present_Position"))
    assert read == set(range(997, 1004))
    with pytest.raises(ValueError, match="expected one of vanish"):
        inject(servo, "rust")
