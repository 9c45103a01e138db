"""Small models of every kind that people use, and what each engine makes of them."""
