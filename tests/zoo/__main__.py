"""Write the page: ``python -m tests.zoo``."""

from pathlib import Path

from .page import page

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
