"""Tables: reading CSV files, what their columns hold, and the tables of the literature.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
