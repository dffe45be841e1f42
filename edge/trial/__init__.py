"""Recipe tests in virtual time."""
