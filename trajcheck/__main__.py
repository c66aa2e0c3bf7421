"""python -m trajcheck"""

from trajcheck.cli import main

main()
