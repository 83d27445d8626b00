"""The command line called in this process: what is typed, printed and returned, without the seconds of a new one."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

from edgekd.cli import main as cli


def call_main(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `edgekd WORDS` as the installed script does; exit code and output are those of the process it would be.

    What is printed goes to buffers that stay open: a library that is imported here keeps them for its logger.
    """
    handler, typed, code = signal.getsignal(signal.SIGTERM), sys.argv, 0
    sys.argv = ["edgekd", *map(str, words)]
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = typed
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
