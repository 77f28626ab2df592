"""Tests, one room for each room of neuralsdf/; what test modules share is in helpers/."""

import pytest

pytest.register_assert_rewrite("tests.helpers")
