"""Pictures: the tasks of the literature, and how their files are read.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
