"""The numbers of cases on the page about robustness are those of the tests, and reach what each area ought to have."""

from __future__ import annotations

import importlib
import inspect
import math
import re
from pathlib import Path

import corpus_folders
import pytest
import test_model_files
import test_model_sandbox
from mutants import COUNT, LONG

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"


def product(function):
    """How often a test runs in `make test`."""
    counts = []
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "slow":
            return 0
        if mark.name == "parametrize":
            counts.append(sum(not is_slow(value) for value in mark.args[1]))
    return math.prod(counts)


def is_slow(value):
    return any(mark.name == "slow" for mark in getattr(value, "marks", ()))


def cases(module, pattern):
    """The cases of a module's tests whose names match."""
    found = vars(importlib.import_module(module)).items()
    tests = [function for name, function in found if name.startswith("test_") and re.search(pattern, name) and inspect.isfunction(function)]
    assert tests, f"no test of {module} matches {pattern}"
    return sum(map(product, tests))


def file_games():
    """How many files that are none, or that change while they are read, the tests of the sandbox have."""
    return sum(product(test) for name, test in vars(test_model_sandbox.TestFileGames).items() if name.startswith("test_"))


FUZZED = ("test_model_files_fuzz", "test_model_folders", "test_model_files_legacy", "test_model_files_onnx", "test_data_fuzz")


def mutations():
    """Parser -> how many mutated files it reads in `make test` and in `make slow`."""
    found = {}
    for module in FUZZED:
        for mark in importlib.import_module(module).test_only_our_errors.pytestmark:
            for case in mark.args[1] if mark.name == "parametrize" else ():
                kind, count, _ = case.values
                found.setdefault(kind, [0, 0])[is_slow(case)] += count
    return found


AREAS = {
    "model files of strangers": (260, lambda: len(test_model_files.CASES)),
    "model files that are none, or that change": (8, file_games),
    "HDF5 and Keras files": (80, lambda: cases("test_model_files_hdf5", "refused|not_built")),
    "model folders of strangers": (60, lambda: len(corpus_folders.cases())),
    "idx files": (32, lambda: cases("test_hostile_data", "idx_(images|gz|missing)")),
    "npz and npy arrays": (24, lambda: cases("test_hostile_data_archives", "npz_(arrays|deflated|unwanted)")),
    "image folders": (
        40,
        lambda: cases("test_hostile_data_images", "image_refused|folder_refused|unreadable|too_many|one_class|nothing_at"),
    ),
    "archives": (18, lambda: cases("test_hostile_data_archives", "npz_archive|npz_member|npz_too|cifar_archive|cifar_pickles")),
    "labels and tables": (12, lambda: cases("test_hostile_data", "labels") + cases("test_hostile_data_archives", "table|batch_refused")),
    "paths and files that are none": (24, lambda: cases("test_hostile_data", "path|no_file")),
    "text in pages and Markdown": (180, lambda: cases("test_report", "hostile_text")),
    "text in terminals, CSV, errors and file names": (
        180,
        lambda: cases("test_injection", "terminal|csv|error|file_name") + cases("test_hostile_data_images", "escaped|unprintable"),
    ),
    "several processes at one store": (
        14,
        lambda: (
            cases("test_store", "processes|writers|threads|racers|readers|holder|spellings|sweeps|listing_while|kill_while")
            + cases("test_files", "most_one_process|old_or_new|taken_lock|left_behind")
        ),
    ),
    "the same under other circumstances": (
        16,
        lambda: (
            cases("test_determinism", "same|pictures|json")
            + cases("test_train", "same_bits|bits_agree|bits_are|same_call")
            + cases("test_engine", "number_of_workers")
            + cases("test_run", "same_record")
        ),
    ),
    "parsers that read mutated files": (18, lambda: len(mutations())),
}


@pytest.mark.parametrize("area", AREAS)
def test_the_page_says_how_many_there_are(area):
    least, count = AREAS[area]
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([\d,]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert int(rows[area].replace(",", "")) == count() >= least


def test_the_page_says_how_many_mutations():
    rows = re.findall(r"^\| `([\w. ]+)` \| ([\d,]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {kind: [int(number.replace(",", "")), LONG] for kind, number in rows} == mutations()
    assert {fast for fast, _ in mutations().values()} == {COUNT}
