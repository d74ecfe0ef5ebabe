"""Being told to go: the first SIGTERM or SIGINT interrupts the main thread, and is remembered.

SIGTERM is what `ray job stop`, Kubernetes, Slurm and spot machines send, SIGINT is Ctrl-C. Both become a
KeyboardInterrupt: Ray's core worker lets no other exception of a signal handler through, and aborts with a C++ trace
at a SystemExit, which Ray's own handler of SIGTERM raises.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_REPEAT_EVERY_S = 2.0
_ONE_PRESS_S = 1.0  # `timeout` sends its signal twice, a wrapper may pass on what the terminal has sent already


class StillBusyError(KeyboardInterrupt):
    """Stopped while a thread is inside Ray, which must not be shut down under it."""


class _Stop:
    told: signal.Signals | None = None
    told_at = 0.0
    heard = threading.Event()


def listen() -> None:
    """Handle both signals from now on. To be called in the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


@contextmanager
def ray_starting() -> Iterator[None]:
    """Around `ray.init`, which begins with a handler of SIGTERM of its own and leaves it in force."""
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # what that handler exits with
            raise
        _tell(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        listen()


def told() -> signal.Signals | None:
    """The signal that came first, or None."""
    return _Stop.told


def exit_status() -> int:
    """Of a process that was stopped, as shells count: 143 after SIGTERM, 130 after SIGINT."""
    return 128 + (_Stop.told or signal.SIGINT)


def hear() -> None:
    """The main thread is ending the work: only Ctrl-C interrupts it again, if it comes a second time."""
    _Stop.heard.set()


def ignore() -> None:
    """From now on neither signal interrupts this process, which is about to exit."""
    hear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _pass)  # not SIG_IGN, which processes that are started now would inherit


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _Stop.told is None:
        _tell(signal.Signals(number))
        threading.Thread(target=_repeat, name="stop", daemon=True).start()
        raise KeyboardInterrupt
    if time.monotonic() - _Stop.told_at > _ONE_PRESS_S and (number == signal.SIGINT or not _Stop.heard.is_set()):
        raise KeyboardInterrupt


def _tell(number: signal.Signals) -> None:
    if _Stop.told is None:
        _Stop.told, _Stop.told_at = number, time.monotonic()


def _pass(number: int, frame: FrameType | None) -> None:
    pass


def _repeat() -> None:
    # Python drops an exception that a handler raises inside a callback of C code or a finalizer.
    main = threading.main_thread().ident or 0
    while not _Stop.heard.wait(_REPEAT_EVERY_S):
        if not _is_ending(main):
            signal.pthread_kill(main, _Stop.told or signal.SIGTERM)


def _is_ending(thread: int) -> bool:
    """Whether a thread runs the clean-up of an interrupted block, which a second interrupt would break off."""
    handled: object = sys._current_exceptions().get(thread)
    error = handled[1] if isinstance(handled, tuple) else handled  # a tuple up to Python 3.11
    while isinstance(error, BaseException):
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
