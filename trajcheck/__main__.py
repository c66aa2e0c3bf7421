"""python -m trajcheck"""

import os
import sys

try:
    here = os.getcwd()
except OSError:  # it is gone
    here = ""
if sys.path and sys.path[0] in ("", here):  # Python puts the working folder first, where files may be anybody's
    del sys.path[0]

from trajcheck.cli import main

main()
