"""edgekd in other tools; each file needs the extra of its name."""
