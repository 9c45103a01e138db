"""What a study asks for: its rows and settings, its file, and where its runs lie.

Imports no other room of ``study``.
"""
