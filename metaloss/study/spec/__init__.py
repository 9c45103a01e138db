"""What a study asks for: its rows and settings, its file, and who trains its runs.

Imports no other room of ``study``.
"""
