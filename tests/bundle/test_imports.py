"""What the record of a bundle's imports says of a file of the checkout."""

from __future__ import annotations

import pytest

from adroit_publish.bundle.imports import Imports

IMPORTS = Imports(
    source=("projects/m/handler.py",),
    model=("code/data_prep.py", "code/prep/__init__.py", "code/prep/prices.py", "model_code.py"),
    env=("numpy",),
)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("projects/m/handler.py", True),
        ("projects/m/unused.py", False),
        # A new file that would be served in the place of what was logged with the model.
        ("projects/m/data_prep.py", True),
        ("data_prep.py", True),
        ("projects/m/prep/prices.py", True),
        ("projects/m/prices.py", False),
        ("projects/m/my_data_prep.py", False),
        ("projects/m/model_code.py", False),
    ],
)
def test_a_file_counts_that_is_imported_or_would_be(path, counts):
    assert IMPORTS.depend_on(path) is counts
