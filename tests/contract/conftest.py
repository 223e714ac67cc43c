"""Make the suite's assertions as telling as those of a test file."""

import pytest

pytest.register_assert_rewrite("tests.contract.suite")
