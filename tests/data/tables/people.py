"""A table of people with gaps, as a file."""

import numpy as np


def people(count=120, seed=0):
    """Return a table with gaps, texts, a name for each row and two columns to predict."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        age, town = draw.integers(18, 80), draw.choice(["Rome", "Oslo", "Bern"])
        income = 20 + 0.5 * age + (10 if town == "Oslo" else 0) + draw.normal()
        rows.append(
            {
                "name": f"person {number}",
                "height": round(draw.normal(170, 10), 2),
                "age": "" if number % 11 == 3 else age,
                "town": "NA" if number % 13 == 5 else town,
                "income": f"{income:.3f}",
                "buys": "yes" if income > 52 else "no",
            }
        )
    return rows
