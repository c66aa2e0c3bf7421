"""Points coloured by step."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

#: From dark blue to light green: viridis without its yellow end, which is too faint on white. Matplotlib makes a
#: bitmap of a bar of 50 colours and more, which would take a walk over the figure for each format.
STEP_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, 48)))
