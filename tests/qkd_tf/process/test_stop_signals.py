import os
import signal

import pytest

from qkd_tf.process.stop_signals import Stopped, StopSignals


@pytest.mark.parametrize("number, name, code", [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "SIGINT", 130)])
def test_signal_stops_at_once_where_nothing_is_held(number, name, code):
    with pytest.raises(Stopped) as caught, StopSignals():
        os.kill(os.getpid(), number)
    assert (str(caught.value), caught.value.exit_code) == (name, code)


def test_held_signal_waits_for_the_check():
    done = []
    with pytest.raises(Stopped), StopSignals() as stop, stop.deferred():
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(stop.received)
        stop.check()
        done.append("too late")
    assert done == [True]


def test_held_signal_is_not_forgotten_where_nobody_checks():
    with pytest.raises(Stopped), StopSignals() as stop:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")


def test_second_signal_does_not_wait():
    with pytest.raises(Stopped, match="SIGINT"), StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")


def test_stopping_is_no_error_that_somebody_might_handle():
    assert not issubclass(Stopped, Exception)


def test_handlers_of_before_are_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_handler_that_is_none_of_pythons_is_left_alone(monkeypatch):
    """An embedding program's own: Python can neither tell it nor put it back."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("was replaced"))
    with StopSignals() as stop:
        assert not stop.received
