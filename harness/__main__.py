"""``python -m harness`` is the command ``harness``, and so is the script that is installed.

There is nothing to lose while modules are imported: until then Ctrl-C ends it without a word.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from harness.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
