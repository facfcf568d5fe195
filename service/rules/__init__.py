"""What is right, without how it comes about: pure functions from values to values."""
