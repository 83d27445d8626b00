"""libedgekd, the chain behind a C header: its sources, its build, and a ctypes mirror of the header."""
