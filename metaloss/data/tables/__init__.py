"""Tables: reading of CSV files, types of columns, and published tables.

May import the shared files of ``metaloss.data``, and no other room of it.
"""
