"""A runnable project in which every setting comes from the environment."""
