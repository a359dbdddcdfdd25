"""GPIO lines of the processing system through `pynq`: user pins (EMIO) of the board's design."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from protocol.errors import InputError

if TYPE_CHECKING:
    from pynq import GPIO


def open_gpio(user_pin: int, direction: Literal["in", "out"], key: str) -> GPIO:
    """The line of user pin `user_pin`; `key` is the configuration's name for it.

    Raises: InputError without the pynq package, on another machine, without root, or if the pin is not there.
    """
    try:
        from pynq import GPIO  # noqa: PLC0415 - the vendor package of this driver alone
    except ImportError as error:
        raise InputError(f"{key} needs the board's pynq package ({error}): run it on the board") from None
    try:
        return GPIO(GPIO.get_gpio_pin(user_pin), direction)
    except (OSError, RuntimeError, TypeError, AttributeError) as error:
        # subtle: without a Zynq's GPIO chip pynq adds to None (TypeError); a line in use is an AttributeError
        raise InputError(
            f"no GPIO {direction}put {user_pin} ({error}): run as root on the board, check {key}"
        ) from None
