"""What a study's runs say: tables, statistics, ranks, and their texts.

May import ``launch`` and ``spec``.
"""
