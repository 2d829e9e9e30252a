"""Mutation testing: change the library in one place, and see whether a test notices.

``make mutation`` runs it; docs/testing.md says what was found.
"""
