"""Labels and pictures of any format become one labelled set."""
