"""Protocol 2.0 on the wire, against packets of the vendor's documentation."""

from __future__ import annotations

import pytest

from lerobot.common.robot_devices.simulation.packets import Packet, PacketReader, status
from lerobot.common.robot_devices.simulation.servo import Servo

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
