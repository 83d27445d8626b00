"""The command line: one thin file a verb; heavy imports happen inside the functions."""
