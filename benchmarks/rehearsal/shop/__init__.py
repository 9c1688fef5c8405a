"""A new project, as small as the tutorial's. It is copied into the bundle of the rehearsal."""
