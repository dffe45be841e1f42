"""Mutation testing: small faults are put into a module one by one, and the tests that run the line must find each."""
