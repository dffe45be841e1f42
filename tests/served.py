"""`python -m tests.served LISTENER LOOP STATE_DIR`: the API process over the cell of `watched`."""

import logging
import socket
import sys
from pathlib import Path

from edge import api
from tests import watched


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    listener, loop = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    api.run(watched.plan(), Path(sys.argv[3]), listener, loop, ())


if __name__ == "__main__":
    main()
