"""What is measured or broken on purpose, outside of the test suite."""
