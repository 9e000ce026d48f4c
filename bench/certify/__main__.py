"""python -m bench.certify: certify a trained network of your own on your own data.

Exit codes: 0 done; 1 some certificates failed, the rest is saved; 2 bad usage, nothing started.
"""

import sys

from bench.basics.commands import command
from bench.certify.options import parser

main = command("bench.certify", parser, "bench.certify.session:certify")

if __name__ == "__main__":
    sys.exit(main())
