"""How a program that measures or serves is ended from outside."""

import signal


def end_as_ctrl_c_does() -> None:
    """From now on SIGTERM (a cancelled CI job, a stopped service) and SIGHUP (a closed terminal) act as Ctrl-C does.

    What is ignored stays ignored, as SIGHUP under nohup.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
