"""Tests, one folder per package of neuralsdf/; code that they share is in helpers/."""

import pytest

pytest.register_assert_rewrite("tests.helpers")
