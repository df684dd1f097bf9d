"""Where Django looks for this app's models; each stands in a module of its own."""
