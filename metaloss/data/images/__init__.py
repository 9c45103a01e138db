"""Image data sets, and readers of their files.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
