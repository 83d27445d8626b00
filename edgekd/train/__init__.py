"""Training: images and a teacher go in, plain student weights come out."""
