"""The package as a whole: what it exports, and what importing it costs."""

import subprocess
import sys

from badnets.core import stats


def test_exports_are_sorted_documented_and_there():
    assert stats.__all__ == sorted(stats.__all__)
    assert all(getattr(stats, name).__doc__ for name in stats.__all__)


def test_importing_the_package_imports_no_numerical_library():
    code = "import sys, badnets.core.stats; print([m for m in ('numpy', 'scipy', 'sklearn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
