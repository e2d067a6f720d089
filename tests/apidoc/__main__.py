"""Writes the reference: `python -m tests.apidoc`, also done by `python -m tests.regenerate_protos`."""

from pathlib import Path

from tests.apidoc.contract import read_contract
from tests.apidoc.pages import api_page

TARGET = Path(__file__).parents[2] / "esperd" / "docs" / "api.md"

if __name__ == "__main__":
    TARGET.write_text(api_page(read_contract()))
