"""
How a mistake is reported: one line that names it, from one rank, and an exit status. Not part of the paper.
"""
import contextlib
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import torch.distributed as dist

from .ranks import stop

GONE = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe|Timed out|store")    # what torch says of lost peers


@contextlib.contextmanager
def one_line_errors(script: str) -> Iterator[None]:
    """A user's mistake (ValueError, OSError) becomes one line, from rank 0 alone, and exit status 2.

    MOTE_TRACEBACK=1 lets it through, for whoever suspects a mistake of ours.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"      # one line too, without our source
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        print(f"{script}: stopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        text = str(error).strip()
        if "in DataLoader worker process" in text:               # it comes with the worker's traceback
            text = text.splitlines()[-1].partition(": ")[2]
        where, rank = "", os.environ.get("RANK", "0")
        if rank != "0":                                          # the same mistake on rank 0 has ended us by then
            time.sleep(3)
            where = f" on rank {rank}"
        print(f"{script}: error{where}: {' '.join(text.split())}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except RuntimeError as error:
        if not (dist.is_initialized() and GONE.search(str(error))):
            raise
        print(f"{script}: error on rank {os.environ.get('RANK')}: another rank is gone, it seems: see its own line or "
              f"torchrun's summary ({' '.join(str(error).split())[:200]})", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    finally:
        stop()
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def printable(path: str) -> str:
    """A path as a terminal takes it, whatever bytes are in it."""
    return os.fsencode(path).decode(errors="replace")


