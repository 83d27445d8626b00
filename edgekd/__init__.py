"""edgekd carries a detector and a promptable segmenter from training to a small device.

`import edgekd` loads no heavy library; the names below are loaded when they are first used.
"""

__version__ = "0.1.0"
