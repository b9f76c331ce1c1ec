"""Messages between the simulated arm's process and the program, also when Ctrl-C cuts one off."""

import socket

import pytest

from lerobot.common.robot_devices.simulation.messages import Inbox, send_message
from lerobot.common.robot_devices.simulation.twin_process import TwinProcess


class Interrupted:
    """A socket that gives a few bytes and is interrupted once, in the middle of a message."""

    def __init__(self, link, after):
        self.link, self.left = link, after

    def recv(self, size):
        if self.left == 0:
            self.left = -1
            raise KeyboardInterrupt
        data = self.link.recv(min(size, 3))
        self.left -= 1
        return data


@pytest.mark.parametrize("after", range(8))
def test_a_message_that_was_cut_off_is_read_on(after):
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    for number in (1, 2):
        send_message(theirs, {"number": number}, bytes([number] * 5))
    inbox = Inbox(Interrupted(ours, after))
    with pytest.raises(KeyboardInterrupt):
        inbox.receive()
    assert [inbox.receive() for _ in (1, 2)] == [({"number": n}, bytes([n] * 5)) for n in (1, 2)]
    theirs.close()
    assert inbox.receive() is None
    ours.close()


def test_after_an_interrupt_the_next_question_gets_its_own_answer():
    pytest.importorskip("mujoco")
    twin = TwinProcess(time="lockstep")
    link, twin._inbox._link = twin._inbox._link, Interrupted(twin._inbox._link, 2)
    with pytest.raises(KeyboardInterrupt):
        twin.ask("advance", frames=3)
    twin._inbox._link = link
    assert set(twin.ask("state")) >= {"torque"}
    twin.close()
